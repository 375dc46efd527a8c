// The words of CUDA C that the kernels use, for the compiler of the host.
//
// A block of the grid is run by one thread of the host, and its CUDA threads are fibers on that thread. A fiber runs until
// it waits: in __syncthreads, or in __ldcv, by which kernels wait for other blocks. Blocks start in order, as many as there
// are cores, and one more whenever a block waits for others, so that all blocks of a grid can meet at a barrier.
//
// A launch ends with an exception where threads wait at different __syncthreads, where some return and others wait, and
// after a time limit. A loop without end that calls neither __syncthreads nor __ldcv is not seen.
#include <dlfcn.h>
#include <link.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#define __global__
#define __device__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __syncthreads() cuda_on_host::wait_at_barrier(__FILE__, __LINE__)
#define threadIdx (cuda_on_host::fiber->thread)
#define blockIdx (cuda_on_host::block->index)
#define blockDim (cuda_on_host::block->size)
#define gridDim (cuda_on_host::block->blocks)

namespace cuda_on_host {

struct Index {
    unsigned x, y, z;
};

// One argument of a kernel. `array` is the handle of an MXNet array, and its memory once the kernel runs; else null.
struct Argument {
    void *array;
    int integer;
    float real;
};

// In which order the threads of a block run between two barriers, and in which the blocks start.
enum Order { forward, reversed, shuffled };

struct Launch {
    Index blocks, threads;
    Order order;
    unsigned seed;
    double limit; // seconds
    int (*memory_of)(void *array, void **memory); // MXNDArrayGetData
    int (*release)(void *array);                  // MXNDArrayFree
    int count;
    Argument *arguments;
};

using Kernel = void (*)(const Argument *);

struct Fiber {
    enum State { ready, at_barrier, done };

    Index thread;
    State state;
    const char *file; // of the barrier at which it waits
    int line;
    bool started;
    ucontext_t start;
    jmp_buf resume;
};

struct Block {
    Index index, size, blocks;
};

thread_local Fiber *fiber;
thread_local Block *block;

// ---- stacks ----------------------------------------------------------------------------------------------------------

// Stacks of the fibers of one block; used again, since the first use of each page of a stack costs time. The last line of
// each stack is at another place in the processor's cache.
class Stacks {
  public:
    static constexpr size_t size = 64 * 1024, stride = size + 64;

    explicit Stacks(size_t count) : count(count), memory(map(count * stride)) {}
    ~Stacks() { munmap(memory, count * stride); }
    Stacks(const Stacks &) = delete;
    Stacks &operator=(const Stacks &) = delete;

    char *operator[](size_t i) const { return memory + i * stride; }

    static std::unique_ptr<Stacks> take(size_t count) {
        std::lock_guard<std::mutex> lock(mutex);
        for (auto &stacks : unused)
            if (stacks->count >= count) {
                std::swap(stacks, unused.back());
                auto taken = std::move(unused.back());
                unused.pop_back();
                return taken;
            }
        return std::make_unique<Stacks>(count);
    }
    static void give_back(std::unique_ptr<Stacks> stacks) {
        std::lock_guard<std::mutex> lock(mutex);
        unused.push_back(std::move(stacks));
    }

  private:
    size_t count;
    char *memory;
    static std::mutex mutex;
    static std::vector<std::unique_ptr<Stacks>> unused;

    static char *map(size_t bytes) {
        void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        return static_cast<char *>(memory);
    }
};
std::mutex Stacks::mutex;
std::vector<std::unique_ptr<Stacks>> Stacks::unused;

// ---- shared memory ---------------------------------------------------------------------------------------------------

// The memory of this thread in which all __shared__ variables are.
struct SharedMemory {
    const void *library;
    void *start;
    size_t bytes;
};

inline SharedMemory shared_memory() {
    block = nullptr; // the first use of such a variable in a thread makes all of them
    Dl_info info;
    dladdr(reinterpret_cast<void *>(&shared_memory), &info);
    SharedMemory found{info.dli_fbase, nullptr, 0};
    dl_iterate_phdr(
        [](dl_phdr_info *library, size_t, void *result) {
            auto &found = *static_cast<SharedMemory *>(result);
            if (reinterpret_cast<void *>(library->dlpi_addr) != found.library) return 0;
            found.start = library->dlpi_tls_data;
            for (int i = 0; i < library->dlpi_phnum; i++)
                if (library->dlpi_phdr[i].p_type == PT_TLS) found.bytes = library->dlpi_phdr[i].p_memsz;
            return 1;
        },
        &found);
    return found;
}

// ---- a grid ----------------------------------------------------------------------------------------------------------

// One launch while it runs.
class Grid {
  public:
    const Launch &launch;
    const Kernel kernel;
    const int threads;

    Grid(const Launch &launch, Kernel kernel)
        : launch(launch), kernel(kernel), threads(launch.threads.x),
          deadline(std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                          std::chrono::duration<double>(launch.limit))),
          order(launch.blocks.x * launch.blocks.y) {
        std::mt19937 random(launch.seed);
        arrange(order, random);
    }

    // Runs all blocks, and throws what made one of them fail.
    void run();

    // Starts a thread for another block, if there is one that has not started.
    void start_another();

    // Puts the numbers from 0 into the order of the launch.
    void arrange(std::vector<int> &numbers, std::mt19937 &random) const {
        std::iota(numbers.begin(), numbers.end(), 0);
        if (launch.order == reversed) std::reverse(numbers.begin(), numbers.end());
        if (launch.order == shuffled) std::shuffle(numbers.begin(), numbers.end(), random);
    }

    // Returns the number of a block to start, or -1.
    int next() {
        if (failed) return -1;
        const size_t i = taken++;
        return i < order.size() ? order[i] : -1;
    }

    void fail(const std::string &why) {
        std::lock_guard<std::mutex> lock(mutex);
        if (!failed) reason = why;
        failed = true;
    }
    bool has_failed() {
        if (!failed && std::chrono::steady_clock::now() > deadline)
            fail("not finished after " + std::to_string(launch.limit) + " s");
        return failed;
    }

  private:
    const std::chrono::steady_clock::time_point deadline;
    std::vector<int> order;
    std::atomic<size_t> taken{0};
    std::atomic<bool> failed{false};
    std::string reason;
    std::mutex mutex;
    std::vector<std::thread> workers;
};

// Runs blocks of a grid, one after the other, on the thread of the host that calls it.
class Worker {
  public:
    explicit Worker(Grid &grid) : grid(grid), stacks(Stacks::take(grid.threads)), fibers(grid.threads), order(grid.threads) {}
    ~Worker() { Stacks::give_back(std::move(stacks)); }

    void run() {
        for (int number; (number = grid.next()) >= 0;) run_block(number);
    }

    // The first function of a fiber: runs the kernel once for each block.
    [[noreturn]] static void live() {
        for (;;) {
            current->grid.kernel(current->grid.launch.arguments);
            wait(Fiber::done);
        }
    }

    // Leaves the fiber that calls it, until it is resumed. Not inlined, so that the compiler assumes that all memory changes.
    __attribute__((noipa)) static void wait(Fiber::State state) {
        fiber->state = state;
        if (!_setjmp(fiber->resume)) _longjmp(current->scheduler, 1);
    }

  private:
    Grid &grid;
    std::unique_ptr<Stacks> stacks;
    std::vector<Fiber> fibers;
    std::vector<int> order;
    jmp_buf scheduler;
    const SharedMemory shared = shared_memory();
    static thread_local Worker *current;

    void run_block(int number) {
        memset(shared.start, 0xff, shared.bytes); // NaN
        const int across = grid.launch.blocks.x;
        Block mine{{number % across, number / across, 0}, grid.launch.threads, grid.launch.blocks};
        block = &mine;
        current = this;
        for (int i = 0; i < grid.threads; i++) {
            fibers[i].thread = {i, 0, 0};
            fibers[i].state = Fiber::ready;
        }
        std::mt19937 random(grid.launch.seed + number);
        while (!grid.has_failed()) {
            grid.arrange(order, random);
            for (int i : order)
                if (fibers[i].state == Fiber::ready) resume(i);
            const auto in = [&](Fiber::State state) {
                return std::count_if(fibers.begin(), fibers.end(), [&](const Fiber &f) { return f.state == state; });
            };
            if (in(Fiber::done) == grid.threads) return;
            if (in(Fiber::ready))
                sched_yield();
            else
                leave_barrier();
        }
    }

    __attribute__((noipa)) void resume(int i) {
        fiber = &fibers[i];
        if (_setjmp(scheduler)) return;
        if (fiber->started) _longjmp(fiber->resume, 1);
        fiber->started = true;
        getcontext(&fiber->start);
        fiber->start.uc_stack.ss_sp = (*stacks)[i];
        fiber->start.uc_stack.ss_size = Stacks::size;
        makecontext(&fiber->start, reinterpret_cast<void (*)()>(&Worker::live), 0);
        setcontext(&fiber->start);
    }

    // Lets all threads of the block continue, if all of them wait at one __syncthreads.
    void leave_barrier() {
        const auto first = std::find_if(fibers.begin(), fibers.end(), [](const Fiber &f) { return f.state != Fiber::done; });
        for (const Fiber &other : fibers)
            if (other.state == Fiber::done)
                return grid.fail(describe(*first) + ", and thread " + std::to_string(other.thread.x) + " has returned");
            else if (other.line != first->line || strcmp(other.file, first->file))
                return grid.fail(describe(*first) + ", and " + describe(other));
        for (Fiber &f : fibers) f.state = Fiber::ready;
    }

    static std::string describe(const Fiber &f) {
        return "thread " + std::to_string(f.thread.x) + " waits at __syncthreads of " + f.file + ":" + std::to_string(f.line);
    }

    friend void wait_for_other_blocks();
};
thread_local Worker *Worker::current;

inline void Grid::run() {
    const size_t cores = std::max(1u, std::thread::hardware_concurrency());
    for (size_t i = 1; i < std::min(cores, order.size()); i++) start_another();
    Worker(*this).run();
    for (size_t i = 0;; i++) { // workers start others
        std::thread worker;
        {
            std::lock_guard<std::mutex> lock(mutex);
            if (i == workers.size()) break;
            worker = std::move(workers[i]);
        }
        worker.join();
    }
    if (failed) throw std::runtime_error(reason);
}

inline void Grid::start_another() {
    if (taken >= order.size()) return;
    std::lock_guard<std::mutex> lock(mutex);
    if (workers.size() + 1 < order.size()) workers.emplace_back([this] { Worker(*this).run(); });
}

inline void wait_at_barrier(const char *file, int line) {
    fiber->file = file;
    fiber->line = line;
    Worker::wait(Fiber::at_barrier);
}

inline void wait_for_other_blocks() {
    Worker::current->grid.start_another();
    Worker::wait(Fiber::ready);
}

// Runs a kernel as an operation of MXNet's engine, which reports the exception.
inline void run(Launch &launch, Kernel kernel, const char *name) {
    try {
        std::vector<Argument> arguments(launch.arguments, launch.arguments + launch.count);
        for (Argument &argument : arguments)
            if (argument.array && launch.memory_of(argument.array, &argument.array))
                throw std::runtime_error("no memory of an argument");
        Launch with_memory = launch;
        with_memory.arguments = arguments.data();
        Grid(with_memory, kernel).run();
    } catch (const std::exception &error) {
        throw std::runtime_error(std::string("kernel ") + name + ": " + error.what());
    }
}

} // namespace cuda_on_host

// Returns a copy of a launch for delete_launch, which the engine calls when the operation is over.
extern "C" void *copy_launch(const cuda_on_host::Launch *launch) {
    auto copy = new cuda_on_host::Launch(*launch);
    copy->arguments = new cuda_on_host::Argument[launch->count];
    std::copy_n(launch->arguments, launch->count, copy->arguments);
    return copy;
}

extern "C" void delete_launch(void *pointer) {
    auto launch = static_cast<cuda_on_host::Launch *>(pointer);
    for (int i = 0; i < launch->count; i++)
        if (launch->arguments[i].array) launch->release(launch->arguments[i].array);
    delete[] launch->arguments;
    delete launch;
}

// ---- functions of CUDA C ---------------------------------------------------------------------------------------------

struct alignas(16) float4 {
    float x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
static inline int atomicAdd(int *p, int n) { return __atomic_fetch_add(p, n, __ATOMIC_SEQ_CST); }
static inline unsigned atomicAdd(unsigned *p, unsigned n) { return __atomic_fetch_add(p, n, __ATOMIC_SEQ_CST); }

static inline float __ldcg(const float *p) { return *p; }
static inline float4 __ldcg(const float4 *p) { return *p; }

// Kernels read with __ldcv what they wait for, so another fiber or block is given time.
static inline int __ldcv(const int *p) {
    cuda_on_host::wait_for_other_blocks();
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
static inline unsigned __ldcv(const unsigned *p) {
    cuda_on_host::wait_for_other_blocks();
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
