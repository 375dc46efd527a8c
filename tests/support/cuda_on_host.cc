// Runs grids of CUDA threads on the host.
//
// A block of a grid runs on one thread of the host, and its CUDA threads are fibers of that thread. A fiber runs until it
// waits: in __syncthreads, or in __ldcv, with which kernels wait for other blocks. As many blocks start as there are
// cores, and one more whenever a block waits for others, so that all blocks of a grid can meet at a barrier.
//
// A launch ends with an exception where the threads of a block wait at different __syncthreads, where some of them wait
// and the others have returned, where the index of an array of known size is out of bounds, and after a time limit. A loop
// that never ends is only stopped if it calls __syncthreads or __ldcv.
#include "cuda_on_host.h"

#include <dlfcn.h>
#include <link.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace cuda_on_host {

__thread const Index *thread;
__thread const Block *block;

// In which order the threads of a block run between two barriers, and in which the blocks start.
enum Order { forward, reversed, shuffled };

struct Launch {
    Index blocks, threads;
    Order order;
    unsigned seed;
    double limit;                                 // seconds
    int (*memory_of)(void *array, void **memory); // MXNDArrayGetData
    int (*release)(void *array);                  // MXNDArrayFree
    int count;
    Argument *arguments;
};

namespace {

struct Fiber {
    enum State { ready, at_barrier, done };

    Index thread;
    State state;
    const char *file; // where it waits at a barrier
    int line;
    bool is_started;
    jmp_buf resume;
};

// ---- memory ----------------------------------------------------------------------------------------------------------

// Stacks for the fibers of one block. They are used again by later blocks, because the first use of memory takes long.
class Stacks {
  public:
    static constexpr size_t size = 64 * 1024;

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
    // Not a power of two, so that the beginnings of all stacks do not share one set of the processor's cache.
    static constexpr size_t stride = size + 64;

    const size_t count;
    char *const memory;
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

// The __shared__ variables of this thread of the host: all of this library's variables that each thread has its own of.
struct SharedMemory {
    void *start;
    size_t bytes;

    static SharedMemory find() {
        block = nullptr; // the first use of one of them makes all
        SharedMemory found{nullptr, 0};
        dl_iterate_phdr(
            [](dl_phdr_info *library, size_t, void *found) {
                Dl_info self;
                dladdr(reinterpret_cast<void *>(&SharedMemory::find), &self);
                if (reinterpret_cast<void *>(library->dlpi_addr) != self.dli_fbase) return 0;
                for (int i = 0; i < library->dlpi_phnum; i++)
                    if (library->dlpi_phdr[i].p_type == PT_TLS)
                        *static_cast<SharedMemory *>(found) = {library->dlpi_tls_data, library->dlpi_phdr[i].p_memsz};
                return 1;
            },
            &found);
        return found;
    }
};

// ---- a grid ----------------------------------------------------------------------------------------------------------

// One launch while it runs.
class Grid {
  public:
    const Launch &launch;
    const Kernel kernel;

    Grid(const Launch &launch, Kernel kernel)
        : launch(launch), kernel(kernel), end(Clock::now() + std::chrono::milliseconds(int64_t(launch.limit * 1000))),
          order(launch.blocks.x * launch.blocks.y) {
        std::mt19937 random(launch.seed);
        arrange(order, random);
    }

    // Runs all blocks, and throws why one of them failed.
    void run();

    // Starts a thread of the host for another block, if there is one that has not started.
    void start_another();

    // Returns the number of a block to start, or -1.
    int next() {
        const size_t i = taken++;
        return !failed && i < order.size() ? order[i] : -1;
    }

    // Fills `numbers` with 0, 1, 2 and so on in the order of this launch.
    void arrange(std::vector<int> &numbers, std::mt19937 &random) const {
        std::iota(numbers.begin(), numbers.end(), 0);
        if (launch.order == reversed) std::reverse(numbers.begin(), numbers.end());
        if (launch.order == shuffled) std::shuffle(numbers.begin(), numbers.end(), random);
    }

    void fail(const std::string &why) {
        std::lock_guard<std::mutex> lock(mutex);
        if (!failed) reason = why;
        failed = true;
    }
    bool has_failed() {
        if (!failed && Clock::now() > end) fail("not finished after " + std::to_string(launch.limit) + " s");
        return failed;
    }

  private:
    using Clock = std::chrono::steady_clock;

    const Clock::time_point end;
    std::vector<int> order;
    std::atomic<size_t> taken{0};
    std::atomic<bool> failed{false};
    std::mutex mutex; // of the following
    std::string reason;
    std::vector<std::thread> workers;
};

// Runs blocks of a grid, one after the other, on the thread of the host that makes it.
class Worker {
  public:
    explicit Worker(Grid &grid)
        : grid(grid), count(grid.launch.threads.x), stacks(Stacks::take(count)), fibers(count), order(count) {}
    ~Worker() { Stacks::give_back(std::move(stacks)); }

    void run() {
        for (int number; (number = grid.next()) >= 0;) run_block(number);
    }

    // Ends the turn of the fiber that calls it.
    static void wait(Fiber::State state) {
        Worker &worker = *current;
        worker.running->state = state;
        if (!_setjmp(worker.running->resume)) _longjmp(worker.scheduler, 1);
    }
    static void wait_at_barrier(const char *file, int line) {
        Fiber &fiber = *current->running;
        fiber.file = file;
        fiber.line = line;
        wait(Fiber::at_barrier);
    }
    static void wait_for_other_blocks() {
        current->grid.start_another();
        wait(Fiber::ready);
    }

    // Ends the launch for a fault of the fiber that calls it.
    static void fail(const std::string &fault) {
        current->grid.fail(name_of(*current->running) + " " + fault);
        wait(Fiber::ready);
    }

  private:
    Grid &grid;
    const unsigned count;
    std::unique_ptr<Stacks> stacks;
    std::vector<Fiber> fibers;
    std::vector<int> order;
    const SharedMemory shared = SharedMemory::find();
    Fiber *running = nullptr;
    jmp_buf scheduler;
    ucontext_t start; // of a fiber
    static thread_local Worker *current;

    void run_block(unsigned number) {
        const Index blocks = grid.launch.blocks;
        const Block mine{{number % blocks.x, number / blocks.x, 0}, grid.launch.threads, blocks};
        memset(shared.start, 0xff, shared.bytes); // NaN
        block = &mine;
        current = this;
        for (unsigned i = 0; i < count; i++) {
            fibers[i].thread = {i, 0, 0};
            fibers[i].state = Fiber::ready;
        }
        std::mt19937 random(grid.launch.seed + number);
        for (bool is_over = false; !is_over && !grid.has_failed();) {
            unsigned number_in[] = {0, 0, 0}; // each state
            grid.arrange(order, random);
            for (int i : order) {
                if (fibers[i].state == Fiber::ready) resume(fibers[i]);
                number_in[fibers[i].state]++;
            }
            if (number_in[Fiber::ready])
                sched_yield();
            else if (number_in[Fiber::at_barrier])
                leave_barrier();
            else
                is_over = true;
        }
    }

    // Gives a fiber its turn. Fibers do not end with their block, so that only a worker's first block makes them.
    void resume(Fiber &fiber) {
        running = &fiber;
        thread = &fiber.thread;
        if (_setjmp(scheduler)) return;
        if (fiber.is_started) _longjmp(fiber.resume, 1);
        fiber.is_started = true;
        getcontext(&start);
        start.uc_stack.ss_sp = (*stacks)[&fiber - fibers.data()];
        start.uc_stack.ss_size = Stacks::size;
        makecontext(&start, &Worker::live, 0);
        setcontext(&start);
    }
    static void live() {
        for (;;) {
            current->grid.kernel(current->grid.launch.arguments);
            wait(Fiber::done);
        }
    }

    // Lets the threads of the block continue, if all of them wait at one __syncthreads.
    void leave_barrier() {
        const auto waits = [](const Fiber &fiber) { return fiber.state == Fiber::at_barrier; };
        const Fiber &first = *std::find_if(fibers.begin(), fibers.end(), waits);
        for (const Fiber &fiber : fibers)
            if (!waits(fiber) || fiber.line != first.line || strcmp(fiber.file, first.file))
                return grid.fail(describe(first) + ", and " + describe(fiber));
        for (Fiber &fiber : fibers) fiber.state = Fiber::ready;
    }
    static std::string describe(const Fiber &fiber) {
        if (fiber.state == Fiber::done) return name_of(fiber) + " has returned";
        return name_of(fiber) + " waits at __syncthreads of " + fiber.file + ":" + std::to_string(fiber.line);
    }
    static std::string name_of(const Fiber &fiber) { return "thread " + std::to_string(fiber.thread.x); }
};
thread_local Worker *Worker::current;

void Grid::run() {
    const size_t cores = std::max(1u, std::thread::hardware_concurrency());
    for (size_t i = 1; i < cores; i++) start_another();
    Worker(*this).run();
    for (size_t i = 0;; i++) { // until all that workers have started in the meantime have ended
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

void Grid::start_another() {
    if (taken >= order.size()) return;
    std::lock_guard<std::mutex> lock(mutex);
    if (workers.size() + 1 < order.size()) workers.emplace_back([this] { Worker(*this).run(); });
}

} // namespace

void wait_at_barrier(const char *file, int line) { Worker::wait_at_barrier(file, line); }

void wait_for_other_blocks() { Worker::wait_for_other_blocks(); }

void run(void *launch, Kernel kernel, const char *name) {
    Launch mine = *static_cast<Launch *>(launch);
    std::vector<Argument> arguments(mine.arguments, mine.arguments + mine.count);
    mine.arguments = arguments.data();
    try {
        for (Argument &argument : arguments)
            if (argument.array && mine.memory_of(argument.array, &argument.array))
                throw std::runtime_error("an array has no memory");
        Grid(mine, kernel).run();
    } catch (const std::exception &error) {
        throw std::runtime_error(std::string("kernel ") + name + ": " + error.what());
    }
}

} // namespace cuda_on_host

struct Place {
    const char *file;
    unsigned line, column;
};

// Called by code that is compiled with -fsanitize=bounds; the description that it passes begins with a place.
extern "C" void __ubsan_handle_out_of_bounds(const Place *place, intptr_t index) {
    cuda_on_host::Worker::fail("uses index " + std::to_string(index) + " out of bounds at " + place->file + ":" +
                               std::to_string(place->line));
}

using cuda_on_host::Argument;
using cuda_on_host::Launch;

// Returns a copy of a launch, for delete_launch, which the engine calls after the operation.
extern "C" void *copy_launch(const Launch *launch) {
    auto copy = new Launch(*launch);
    copy->arguments = new Argument[launch->count];
    std::copy_n(launch->arguments, launch->count, copy->arguments);
    return copy;
}

extern "C" void delete_launch(void *pointer) {
    auto launch = static_cast<Launch *>(pointer);
    for (int i = 0; i < launch->count; i++)
        if (launch->arguments[i].array) launch->release(launch->arguments[i].array);
    delete[] launch->arguments;
    delete launch;
}
