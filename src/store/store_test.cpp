#include "store/store.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "store/codec.hpp"
#include "store/model_for_test.hpp"

namespace grange::store {
namespace {

using testing::Batch;
using testing::fake_sha;
using testing::Scratch;
using testing::take;

std::unique_ptr<Store> open_at(const std::string& path) {
  auto store = Store::open({.directory = path});
  EXPECT_TRUE(store.ok()) << store.error().message;
  return std::move(store).value();
}

void run_sql(const std::string& path, const char* sql) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
  sqlite3_close(db);
}

// Job `no` with `count` tasks, all ended, at `ended`.
Batch finished_job(std::uint32_t no, std::uint32_t count, std::int64_t ended) {
  Batch b;
  core::JobHeader header;
  header.count = count;
  core::JobBody body;
  body.blobs = {fake_sha(no)};
  b.records.emplace_back(core::JobAdded{{no}, b.add(body), header, {1}});
  for (std::uint32_t i = 0; i < count; ++i) {
    b.records.emplace_back(core::TaskEnded{.task = TaskId::of({no}, i), .attempt = 1, .at = {ended}});
  }
  b.records.emplace_back(core::JobProgressed{{no}, core::JobState::completed, count, {count, 0, 0}, {1}, {ended}});
  return b;
}

TEST(StoreOpen, MakesAPrivateFolderAndFiles) {
  const Scratch scratch;
  const std::string path = scratch.path() + "/a/b";
  const auto store = open_at(path);
  struct stat st {};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700u);
  for (const char* file : {"/farm.db", "/farm.db-wal", "/lock"}) {
    ASSERT_EQ(::stat((path + file).c_str(), &st), 0) << file;
    EXPECT_EQ(st.st_mode & 0777, 0600u) << file;
  }
}

TEST(StoreOpen, RefusesAFolderThatIsInUse) {
  const Scratch scratch;
  auto first = open_at(scratch.path());
  auto second = Store::open({.directory = scratch.path()});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().cls, ErrorClass::unavailable);
  EXPECT_NE(second.error().message.find("process id " + std::to_string(::getpid())), std::string::npos)
      << second.error().message;
  first.reset();
  EXPECT_TRUE(Store::open({.directory = scratch.path()}).ok());
}

TEST(StoreOpen, RefusesAPathThatCannotBeAFolder) {
  const Scratch scratch;
  std::ofstream(scratch.path() + "/file") << "x";
  for (const char* below : {"/file", "/file/data"}) {
    auto store = Store::open({.directory = scratch.path() + below});
    ASSERT_FALSE(store.ok());
    EXPECT_EQ(store.error().cls, ErrorClass::io);
    EXPECT_NE(store.error().message.find("another data folder"), std::string::npos) << store.error().message;
  }
}

TEST(StoreOpen, RefusesANewerSchemaAndNamesBothVersions) {
  const Scratch scratch;
  open_at(scratch.path());
  run_sql(scratch.path() + "/farm.db", "PRAGMA user_version = 7001");
  auto store = Store::open({.directory = scratch.path()});
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().cls, ErrorClass::version_mismatch);
  EXPECT_NE(store.error().message.find("7001"), std::string::npos);
  EXPECT_NE(store.error().message.find("up to " + std::to_string(kSchemaVersion)), std::string::npos)
      << store.error().message;
}

TEST(StoreOpen, RefusesWhatIsNotOurs) {
  const Scratch scratch;
  const std::string file = scratch.path() + "/farm.db";
  std::ofstream(file) << std::string(20'000, 'n');
  auto store = Store::open({.directory = scratch.path()});
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().cls, ErrorClass::storage_damaged) << store.error().message;

  ::unlink(file.c_str());
  run_sql(file, "CREATE TABLE theirs(x)");
  store = Store::open({.directory = scratch.path()});
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.error().cls, ErrorClass::storage_damaged);
  EXPECT_NE(store.error().message.find("another program"), std::string::npos) << store.error().message;
}

TEST(StoreOpen, BringsAnEmptyFileUpToTheCurrentVersion) {
  const Scratch scratch;
  std::ofstream(scratch.path() + "/farm.db").flush();
  const auto store = open_at(scratch.path());
  EXPECT_EQ((*(*store->reader())->info()).schema_version, kSchemaVersion);
}

TEST(Store, RefusesWorkWhenTheReserveIsGone) {
  const Scratch scratch;
  auto roomy = Store::open({.directory = scratch.path(), .reserve = 0});
  EXPECT_TRUE((*roomy)->room_for(1).ok());
  roomy = Error{};
  auto tight = Store::open({.directory = scratch.path(), .reserve = UINT64_MAX / 2});
  const auto room = (*tight)->room_for(1);
  ASSERT_FALSE(room.ok());
  EXPECT_EQ(room.error().cls, ErrorClass::storage_full);
  EXPECT_NE(room.error().message.find(scratch.path()), std::string::npos) << room.error().message;
}

TEST(Store, ABatchWithOneBadRecordChangesNothing) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  const Batch good = finished_job(1, 3, 10);
  ASSERT_TRUE(store->commit({good.records, good.bodies}).ok());
  Batch bad = finished_job(2, 3, 10);
  bad.records.emplace_back(core::TaskEnded{.task = TaskId::of({1}, 0), .attempt = 1});  // has its outcome
  ASSERT_FALSE(store->commit({bad.records, bad.bodies}).ok());
  const auto reader = *store->reader();
  EXPECT_EQ((*reader->totals()).jobs, 1u);
  EXPECT_EQ((*reader->totals()).tasks_completed, 3u);
  EXPECT_FALSE((*reader->job({2})).has_value());
  bad.records.pop_back();
  ASSERT_TRUE(store->commit({bad.records, bad.bodies}).ok());
  EXPECT_EQ((*reader->totals()).tasks_completed, 6u);
}

TEST(Store, SaysConflictForAKnownId) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  for (std::uint32_t no = 1; no <= 2; ++no) {
    Batch b;
    core::JobBody body;
    body.id = "same";
    b.records.emplace_back(core::JobAdded{{no}, b.add(body), {}, {}});
    const auto done = store->commit({b.records, b.bodies});
    EXPECT_EQ(done.ok(), no == 1);
    if (!done.ok()) {
      EXPECT_EQ(done.error().cls, ErrorClass::conflict);
    }
  }
}

TEST(Store, ListsJobsByPageAndState) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  for (std::uint32_t no = 1; no <= 10; ++no) {
    Batch b = finished_job(no, 1, no);
    if (no % 2 == 0) b.records.resize(1);  // stays pending
    ASSERT_TRUE(store->commit({b.records, b.bodies}).ok());
  }
  const auto reader = *store->reader();
  const auto numbers = [&](const JobFilter& filter) {
    std::vector<std::uint32_t> out;
    for (const auto& row : take(reader->jobs(filter))) out.push_back(row.job.value);
    return out;
  };
  JobFilter filter;
  filter.limit = 3;
  EXPECT_EQ(numbers(filter), (std::vector<std::uint32_t>{10, 9, 8}));
  filter.before = JobNo{8};
  EXPECT_EQ(numbers(filter), (std::vector<std::uint32_t>{7, 6, 5}));
  filter.state = core::JobState::pending;
  EXPECT_EQ(numbers(filter), (std::vector<std::uint32_t>{6, 4, 2}));
  filter.skip = 2;
  EXPECT_EQ(numbers(filter), (std::vector<std::uint32_t>{2}));
  EXPECT_EQ(*reader->find_job("7"), JobNo{7});
  for (const char* none : {"11", "07", "", "7x", "99999999999"})
    EXPECT_EQ(*reader->find_job(none), std::nullopt) << none;
}

TEST(Store, ListsOutcomesByPageAndWithoutValues) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  Batch b;
  for (std::uint32_t i = 0; i < 10; ++i) {
    core::ResultBody body;
    body.value = "v", body.message = "m", body.traceback = "t", body.exit_code = -1;
    b.records.emplace_back(core::TaskEnded{
        .task = TaskId::of({4}, i * 2), .end = core::TaskEnd::failed, .attempt = 1, .body = b.add(body)});
  }
  ASSERT_TRUE(store->commit({b.records, b.bodies}).ok());
  const auto reader = *store->reader();
  const auto rows = *reader->outcomes({4}, 3, 2, false);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].task.index(), 4u);
  EXPECT_EQ(rows[1].task.index(), 6u);
  EXPECT_EQ(rows[0].body.value + rows[0].body.traceback, "");
  EXPECT_EQ(rows[0].body.message, "m") << "why it failed is always told";
  EXPECT_EQ(rows[0].body.exit_code, -1);
  EXPECT_EQ((*reader->outcomes({4}, 18, 100, true)).at(0).body.traceback, "t");
  EXPECT_EQ((*reader->outcomes({3}, 0, 100, true)).size(), 0u);
  EXPECT_EQ((*reader->outcomes({5}, 0, 100, true)).size(), 0u);
}

TEST(Store, FiltersFailuresByWorkerAndJob) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  Batch b;
  for (std::uint32_t i = 0; i < 12; ++i) {
    b.records.emplace_back(core::AttemptFailed{
        .task = TaskId::of({1 + i % 2}, i), .worker = {1 + i % 3}, .failure = core::FailureClass::exception});
  }
  ASSERT_TRUE(store->commit({b.records, b.bodies}).ok());
  const auto reader = *store->reader();
  EXPECT_EQ((*reader->failures({}, {}, 0, 0, 100)).size(), 12u);
  EXPECT_EQ((*reader->failures(WorkerNo{1}, {}, 0, 0, 100)).size(), 4u);
  EXPECT_EQ((*reader->failures({}, JobNo{2}, 0, 0, 100)).size(), 6u);
  EXPECT_EQ((*reader->failures(WorkerNo{1}, JobNo{2}, 0, 0, 100)).size(), 2u);
  const auto page = *reader->failures({}, {}, 0, 1, 2);
  ASSERT_EQ(page.size(), 2u);
  EXPECT_EQ(page[0].task.index(), 10u);
  EXPECT_EQ((*reader->failures({}, {}, page[1].id, 0, 1)).at(0).task.index(), 8u);
}

TEST(Store, ForgetsTheOldestBeyondWhatIsKept) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  for (std::uint32_t no = 1; no <= 8; ++no) {
    const Batch b = finished_job(no, 2, 100 - no);  // the higher the number, the longer ago it ended
    ASSERT_TRUE(store->commit({b.records, b.bodies}).ok());
  }
  Batch live = finished_job(9, 2, 1);
  live.records.resize(1);
  ASSERT_TRUE(store->commit({live.records, live.bodies}).ok());
  const auto reader = *store->reader();
  EXPECT_EQ(store->forget_ended({0}, 100, 10)->size(), 0u);
  EXPECT_EQ(store->forget_ended({0}, 6, 10)->size(), 2u);    // 7 and 8, by number kept
  EXPECT_EQ(store->forget_ended({96}, 100, 1)->size(), 1u);  // 6 ended at 94, 5 at 95: by age, one at a time
  EXPECT_EQ(store->forget_ended({96}, 100, 10)->size(), 1u);
  std::vector<std::uint32_t> left;
  for (const auto& row : take(reader->jobs({}))) left.push_back(row.job.value);
  EXPECT_EQ(left, (std::vector<std::uint32_t>{9, 4, 3, 2, 1}));
  EXPECT_TRUE((*reader->outcomes({5}, 0, 10, true)).empty());
  EXPECT_FALSE(*reader->blob_in_use(fake_sha(5)));
  EXPECT_TRUE(*reader->blob_in_use(fake_sha(4)));
  EXPECT_TRUE(*reader->blob_in_use(fake_sha(9)));
  EXPECT_EQ((*reader->totals()).tasks_completed, 16u) << "task totals are for ever";
}

TEST(Store, ForgetsABigJobPieceByPiece) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  const Batch b = finished_job(1, 120'000, 1);
  ASSERT_TRUE(store->commit({b.records, b.bodies}).ok());
  const auto reader = *store->reader();
  const auto outcomes = [&] {
    for (const auto& [table, rows] : take(reader->info()).rows) {
      if (table == "outcomes") return rows;
    }
    return std::uint64_t{0};
  };
  EXPECT_EQ(store->forget_ended({2}, 0, 1)->size(), 1u);
  EXPECT_FALSE((*reader->job({1})).has_value());
  std::uint64_t before = 120'000;
  int calls = 0;
  while (outcomes() != 0) {
    ASSERT_LT(outcomes(), before);
    before = outcomes();
    ASSERT_TRUE(store->forget_ended({0}, 100, 0).ok());
    ASSERT_LT(++calls, 20);
  }
  EXPECT_GT(calls, 1);
  ASSERT_TRUE(store->forget_ended({0}, 100, 0).ok());
  EXPECT_FALSE(*reader->blob_in_use(fake_sha(1)));
}

TEST(Store, ForgetsAllButWhoItIs) {
  const Scratch scratch;
  std::string id;
  {
    const auto store = open_at(scratch.path());
    id = (*store->load()).server_id;
    Batch b = finished_job(5, 1000, 1);
    for (std::uint32_t w = 1; w <= 2; ++w) {
      b.records.emplace_back(
          core::WorkerSeen{{w}, w == 1, b.add(core::WorkerBody{"w" + std::to_string(w), "", ""}), {1}});
    }
    ASSERT_TRUE(store->commit({b.records, b.bodies}).ok());
    ASSERT_TRUE(store->put_model("m", "1", fake_sha(1), 5, {1}).ok());
    ASSERT_TRUE(store->forget_all().ok());
    const auto reader = *store->reader();
    EXPECT_TRUE((*reader->jobs({})).empty());
    EXPECT_TRUE((*reader->list_models()).empty());
    EXPECT_EQ((*reader->totals()).tasks_completed, 0u);
    EXPECT_EQ((*reader->workers()).size(), 1u) << "the connected one stays";
    for (const auto& [table, rows] : take(reader->info()).rows) EXPECT_EQ(rows, table == "workers" ? 1u : 0u) << table;
    const Batch next = finished_job(6, 1, 1);
    ASSERT_TRUE(store->commit({next.records, next.bodies}).ok());
  }
  const auto store = open_at(scratch.path());
  const auto loaded = *store->load();
  EXPECT_EQ(loaded.server_id, id);
  EXPECT_EQ(loaded.incarnation, 2u);
  EXPECT_EQ(loaded.last_job.value, 6u);
}

TEST(Store, NamesCodeOnceAndForAll) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  EXPECT_TRUE(store->put_model("sieve", "1", fake_sha(1), 10, {5}).ok());
  EXPECT_TRUE(store->put_model("sieve", "1", fake_sha(1), 10, {6}).ok());
  EXPECT_TRUE(store->put_model("sieve", "2", fake_sha(2), 20, {7}).ok());
  const auto other = store->put_model("sieve", "1", fake_sha(3), 10, {8});
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().cls, ErrorClass::conflict);
  const auto reader = *store->reader();
  const auto found = *reader->get_model("sieve", "1");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->sha256, fake_sha(1));
  EXPECT_EQ(found->at.ms, 5);
  EXPECT_FALSE((*reader->get_model("sieve", "3")).has_value());
  EXPECT_EQ((*reader->list_models()).size(), 2u);
  EXPECT_TRUE(*reader->blob_in_use(fake_sha(2)));
  EXPECT_FALSE(*reader->blob_in_use(fake_sha(3)));
}

TEST(Codec, SurvivesAnyBytes) {
  Prng prng(5);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes(prng.below(40), '\0');
    for (char& c : bytes) c = static_cast<char>(prng.below(prng.below(2) == 0 ? 12 : 256));
    core::ResultBody body;
    core::Request request;
    std::vector<std::uint32_t> sizes;
    (void)unpack_extra(bytes, true, body);
    (void)unpack_request(bytes, request);
    if (unpack_sizes(bytes, 50, sizes)) {
      EXPECT_EQ(sizes.size(), 50u);
    }
    EXPECT_LE(sizes.size(), 50u);
  }
}

}  // namespace
}  // namespace grange::store
