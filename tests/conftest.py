"""What every test relies on: one thread a worker, a text that is ours, and one small trained run."""

import os
import signal
from pathlib import Path
from typing import List, NamedTuple

import pytest

from tests.integration.programs import TINY, TRAIN, run

os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts a command in the background with SIGINT ignored, and children inherit that; some tests send SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TRAINED_FLAGS = (*TINY, "--epochs=3", "--log-every=2", "--sample-length=30", "--learning-rate=0.5")

# Three parts of a verse; every combination of an opening, a middle and an end reads as one.
OPENINGS = (
    "清晨我推开旧木窗 夜里下过雨的小巷 风把纸船送到桥旁 火车慢慢离开车站 祖母在灯下补衣裳 孩子们追着白鸽跑 "
    "山后的月亮刚睡醒 海边的石头记得潮水 冬天的邮差敲响铁门 迷路的猫坐在屋顶 码头工人唱起老歌 春天把种子藏进泥土 "
    "图书馆里落满阳光 麦田尽头有人挥手 厨房飘来姜汤的香 沙漠中央开一朵花"
).split()
MIDDLES = (
    "不分开也不回头望 战争中部队走过村庄 我们各自数着星光 谁的名字写在墙上 雪融化成一条河流 信封里装着半片叶 "
    "收音机忽然没了声 梦像气球越飞越高 两只杯子碰出回响 影子比昨天长一点 雨伞靠着空椅子等 面包分给陌生的鸟"
).split()
ENDS = (
    "明天再说吧 就这样慢慢忘 你听见了吗 请替我保管 天色渐渐亮 谁都别着急 路还很远呢 心里很安静 把门轻轻关 "
    "答案在风里 笑着说再见"
).split()


def verses(count: int = 150) -> List[str]:
    """Lines of some 22 characters; the first hold 分开, 不分开 and 战争中部队, no two are alike."""
    return [
        f"{OPENINGS[k % len(OPENINGS)]} {MIDDLES[k % len(MIDDLES)]} {ENDS[(k + k // 48) % len(ENDS)]}"
        for k in range(count)
    ]


@pytest.fixture(scope="session")
def song_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 3,000 characters, UTF-8, LF line ends."""
    path = tmp_path_factory.mktemp("corpus") / "song.txt"
    path.write_bytes(("\n".join(verses()) + "\n").encode())
    return path


class Trained(NamedTuple):
    run_dir: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def trained(song_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run of three epochs, samples after the second and the third; nobody may change its directory."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    result = run([*TRAIN, f"--corpus={song_file}", f"--run-dir={run_dir}", *TRAINED_FLAGS])
    assert result.returncode == 0, result.stderr
    return Trained(run_dir, result.stdout, result.stderr)
