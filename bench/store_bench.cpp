// The store's hot paths, on a real disk: TMPDIR says where (default: the current folder, because /tmp is often memory).
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/prng.hpp"
#include "store/logs.hpp"
#include "store/store.hpp"

namespace grange::store {
namespace {

class Folder {
 public:
  Folder() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : ".") + "/store-bench-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void require(bool ok) {
  if (!ok) std::abort();
}

void add_job(Store& store, std::uint32_t count) {
  core::JobHeader header;
  header.count = count;
  core::Bodies bodies{core::JobBody{}};
  const core::Record record = core::JobAdded{{1}, 0, header, {1}};
  require(store.commit({{&record, 1}, bodies}).ok());
}

core::TaskEnded ended(std::uint32_t index, core::BodyRef body = core::kNoBody) {
  return {TaskId::of({1}, index),
          core::TaskEnd::completed,
          core::FailureClass::none,
          1,
          {3},
          body,
          {1'700'000'000'000 + index},
          120};
}

// Arguments: outcomes a commit, bytes of each result (0: none), page size.
void Outcomes(benchmark::State& state) {
  const Folder folder;
  auto store = *Store::open({.directory = folder.path(), .page_size = static_cast<int>(state.range(2))});
  add_job(*store, UINT32_MAX);
  const auto batch = static_cast<std::uint32_t>(state.range(0));
  core::Bodies bodies;
  if (state.range(1) != 0) {
    core::ResultBody body;
    body.value.assign(static_cast<std::size_t>(state.range(1)), 'v');
    bodies.emplace_back(body);
  }
  std::uint32_t next = 0;
  std::vector<core::Record> records;
  for (auto _ : state) {
    records.clear();
    for (std::uint32_t i = 0; i < batch; ++i) records.emplace_back(ended(next++, bodies.empty() ? core::kNoBody : 0));
    records.emplace_back(core::JobProgressed{{1}, core::JobState::running, next, {next, 0, 0}, {1}, {}});
    require(store->commit({records, bodies}).ok());
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(next));
  state.counters["bytes_each"] = static_cast<double>((*(*store->reader())->info()).db_bytes) / next;
}
BENCHMARK(Outcomes)
    ->Args({1, 0, 4096})
    ->Args({100, 0, 4096})
    ->Args({1000, 0, 4096})
    ->Args({1000, 0, 8192})
    ->Args({16384, 0, 4096})
    ->Args({1000, 100, 4096})
    ->Args({1000, 100, 8192})
    ->UseRealTime()
    ->MinTime(2);

// The floor of a commit: append a page and sync.
void Fsync(benchmark::State& state) {
  const Folder folder;
  const int fd = ::open((folder.path() + "/file").c_str(), O_RDWR | O_CREAT, 0600);
  const std::string page(4096 * 4, 'x');
  for (auto _ : state) {
    require(::write(fd, page.data(), page.size()) == static_cast<ssize_t>(page.size()));
    require(::fdatasync(fd) == 0);
  }
  ::close(fd);
}
BENCHMARK(Fsync)->UseRealTime();

void SubmitArrayOfAMillion(benchmark::State& state) {
  const Folder folder;
  auto store = *Store::open({.directory = folder.path()});
  core::JobBody body;
  for (std::uint32_t first = 0; first < 1'000'000; first += 4096) {
    core::ArgumentPage page{first, {}, {}};
    page.sizes.assign(std::min(4096u, 1'000'000 - first), 6);
    page.bytes.assign(page.sizes.size() * 6, 'a');
    body.pages.push_back(std::move(page));
  }
  const core::Bodies bodies{std::move(body)};
  std::uint32_t no = 0;
  core::JobHeader header;
  header.count = 1'000'000;
  for (auto _ : state) {
    const core::Record record = core::JobAdded{{++no}, 0, header, {1}};
    require(store->commit({{&record, 1}, bodies}).ok());
  }
}
BENCHMARK(SubmitArrayOfAMillion)->UseRealTime()->Unit(benchmark::kMillisecond);

struct Filled {
  Folder folder;
  std::unique_ptr<Store> store;
  explicit Filled(std::uint32_t count) : store(*Store::open({.directory = folder.path()})) {
    add_job(*store, count * 2);
    std::vector<core::Record> records;
    for (std::uint32_t i = 0; i < count; ++i) {
      records.emplace_back(ended(i * 2));
      if (records.size() == 16'384 || i + 1 == count) {
        require(store->commit({records, {}}).ok());
        records.clear();
      }
    }
    const core::Record record = core::JobProgressed{{1}, core::JobState::running, count * 2, {count, 0, 0}, {1}, {}};
    require(store->commit({{&record, 1}, {}}).ok());
  }
};

void LoadAMillionEndedAndAMillionOpen(benchmark::State& state) {
  const Filled filled(1'000'000);
  for (auto _ : state) require((*filled.store->load()).jobs.at(0).open.size() == 1'000'000);
}
BENCHMARK(LoadAMillionEndedAndAMillionOpen)->UseRealTime()->Unit(benchmark::kMillisecond);

void ReadOutcomes(benchmark::State& state) {
  const Filled filled(200'000);
  auto reader = *filled.store->reader();
  std::uint32_t from = 0;
  std::int64_t rows = 0;
  for (auto _ : state) {
    const auto page = *reader->outcomes({1}, from, 1000, true);
    rows += static_cast<std::int64_t>(page.size());
    from = page.size() < 1000 ? 0 : page.back().task.index() + 1;
  }
  state.SetItemsProcessed(rows);
}
BENCHMARK(ReadOutcomes)->UseRealTime();

void Info(benchmark::State& state) {
  const Filled filled(1'000'000);
  auto reader = *filled.store->reader();
  for (auto _ : state) require((*reader->info()).schema_version == kSchemaVersion);
}
BENCHMARK(Info)->UseRealTime();

void LogLines(benchmark::State& state) {
  const Folder folder;
  auto logs = *LogStore::open(folder.path());
  std::int64_t lines = 0;
  for (auto _ : state) {
    std::vector<LogLine> batch;
    for (std::uint32_t i = 0; i < 1000; ++i) batch.push_back({TaskId::of({1}, i), 1, 0, {1}, std::string(80, 'x')});
    while (!logs->append(batch)) logs->flush();
    lines += 1000;
  }
  logs->flush();
  state.SetItemsProcessed(lines);
}
BENCHMARK(LogLines)->UseRealTime();

}  // namespace
}  // namespace grange::store
BENCHMARK_MAIN();
