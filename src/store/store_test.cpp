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
  b.records.emplace_back(
      core::JobProgressed{{no}, core::JobState::completed, count, {count, 0, 0}, {1}, {ended}, count});
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
  EXPECT_EQ(store->forget_ended({0}, {0}, 100, 10)->size(), 0u);
  EXPECT_EQ(store->forget_ended({0}, {0}, 6, 10)->size(), 2u);    // 7 and 8, by number kept
  EXPECT_EQ(store->forget_ended({96}, {0}, 100, 1)->size(), 1u);  // 6 ended at 94, 5 at 95: by age, one at a time
  EXPECT_EQ(store->forget_ended({96}, {0}, 100, 10)->size(), 1u);
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
  EXPECT_EQ(store->forget_ended({2}, {0}, 0, 1)->size(), 1u);
  EXPECT_FALSE((*reader->job({1})).has_value());
  std::uint64_t before = 120'000;
  int calls = 0;
  while (outcomes() != 0) {
    ASSERT_LT(outcomes(), before);
    before = outcomes();
    ASSERT_TRUE(store->forget_ended({0}, {0}, 100, 0).ok());
    ASSERT_LT(++calls, 20);
  }
  EXPECT_GT(calls, 1);
  ASSERT_TRUE(store->forget_ended({0}, {0}, 100, 0).ok());
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

Batch one_job(std::uint32_t no, const core::JobHeader& header = {}, const core::JobBody& body = {},
              std::int64_t submitted = 1) {
  Batch b;
  b.records.emplace_back(core::JobAdded{{no}, b.add(body), header, {submitted}});
  return b;
}
void commit(Store& store, const Batch& b) {
  const auto done = store.commit({b.records, b.bodies});
  ASSERT_TRUE(done.ok()) << done.error().message;
}
void progress(Store& store, std::uint32_t no, core::JobState state, std::int64_t ended = 0) {
  Batch b;
  b.records.emplace_back(
      core::JobProgressed{.job = {no}, .state = state, .counts = {}, .ended = {ended}, .count = 1, .opened = true});
  commit(store, b);
}
std::vector<std::uint32_t> numbers(const std::vector<JobNo>& jobs) {
  std::vector<std::uint32_t> out;
  for (const auto job : jobs) out.push_back(job.value);
  return out;
}
using Numbers = std::vector<std::uint32_t>;

TEST(Store, ForgetsAJobWhenItsOwnTimeIsOver) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  core::JobHeader brief;
  brief.result_ttl = Millis{50};
  core::JobHeader lasting;
  lasting.result_ttl = Millis{INT64_MAX};
  commit(*store, one_job(1, brief));
  commit(*store, one_job(2, lasting));
  commit(*store, one_job(3));
  commit(*store, one_job(4, brief));
  for (const std::uint32_t no : {1u, 2u, 3u}) progress(*store, no, core::JobState::completed, 100);
  const auto reader = *store->reader();
  EXPECT_EQ((*reader->job({1}))->expires.ms, 150);
  EXPECT_EQ((*reader->job({2}))->expires.ms, INT64_MAX);
  EXPECT_EQ((*reader->job({3}))->expires.ms, 0);
  EXPECT_EQ((*reader->job({4}))->expires.ms, 0) << "it has not ended";
  EXPECT_EQ(numbers(*store->forget_ended({0}, {149}, 100, 10)), Numbers{});
  EXPECT_EQ(numbers(*store->forget_ended({0}, {150}, 100, 10)), Numbers{1});
  EXPECT_EQ(numbers(*store->forget_ended({101}, {150}, 100, 10)), Numbers{3}) << "2 has a time of its own";
  EXPECT_EQ(numbers(*store->forget_ended({0}, {150}, 0, 10)), Numbers{2}) << "a number kept is for all";

  // A job that came back has no time until it ends again, also when the store was closed between.
  progress(*store, 4, core::JobState::failed, 200);
  EXPECT_EQ((*reader->job({4}))->expires.ms, 250);
  progress(*store, 4, core::JobState::running);
  EXPECT_EQ((*reader->job({4}))->expires.ms, 0);
  EXPECT_EQ(numbers(*store->forget_ended({1000}, {1000}, 0, 10)), Numbers{});
  progress(*store, 4, core::JobState::completed, 300);
  EXPECT_EQ((*reader->job({4}))->expires.ms, 350);
}

TEST(Store, KeepsResultsThatALiveJobWillBeGiven) {
  const Scratch scratch;
  core::JobHeader child;
  child.after = {{.job = {1}, .pass = true}, {.job = {1}, .index = 0, .pass = true}, {.job = {2}}};
  const auto forget = [](Store& store) { return numbers(*store.forget_ended({INT64_MAX}, {INT64_MAX}, 0, 10)); };
  {
    const auto store = open_at(scratch.path());
    for (const std::uint32_t no : {1u, 2u}) commit(*store, one_job(no));
    commit(*store, one_job(3, child));
    commit(*store, one_job(4, child));
    for (const std::uint32_t no : {1u, 2u}) progress(*store, no, core::JobState::completed, 10);
    EXPECT_EQ(forget(*store), Numbers{2}) << "1 is an input of 3 and 4; 2 was only waited for";
    progress(*store, 3, core::JobState::failed, 20);
    EXPECT_EQ(forget(*store), Numbers{3});
  }
  const auto store = open_at(scratch.path());
  ASSERT_TRUE(store->load().ok());
  EXPECT_EQ(forget(*store), Numbers{});
  progress(*store, 4, core::JobState::failed, 30);
  progress(*store, 4, core::JobState::running);
  EXPECT_EQ(forget(*store), Numbers{}) << "retried, it needs them again";
  progress(*store, 4, core::JobState::completed, 40);
  EXPECT_EQ(forget(*store), (Numbers{1, 4}));
}

TEST(Store, SearchesJobs) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  const auto reader = *store->reader();
  core::JobBody cat, dog;
  cat.name = "Render the cat", cat.user = "anna", cat.engine = "command", cat.id = "mine";
  dog.name = "render a dog 100%", dog.user = "bob", dog.engine = "python";
  commit(*store, one_job(11, {}, cat));
  commit(*store, one_job(12, {}, dog));
  progress(*store, 12, core::JobState::completed, 10);
  const auto found = [&](const JobFilter& filter) {
    Numbers out;
    const auto rows = reader->jobs(filter);
    for (const JobRow& row : *rows) out.push_back(row.job.value);
    return out;
  };
  EXPECT_EQ(found({.user = "anna"}), Numbers{11});
  EXPECT_EQ(found({.engine = "command", .text = "the CAT"}), Numbers{11});
  EXPECT_EQ(found({.engine = "python", .text = "the CAT"}), Numbers{});
  EXPECT_EQ(found({.text = "RENDER"}), (Numbers{12, 11}));
  EXPECT_EQ(found({.before = JobNo{12}, .text = "render"}), Numbers{11});
  EXPECT_EQ(found({.state = core::JobState::completed, .text = "render"}), Numbers{12});
  EXPECT_EQ(found({.text = "MIN"}), Numbers{11}) << "its own id";
  EXPECT_EQ(found({.text = "12"}), Numbers{12}) << "the number of one without";
  EXPECT_EQ(found({.text = "11"}), Numbers{}) << "who has an id is not called by its number";
  EXPECT_EQ(found({.text = "%"}), Numbers{12}) << "no pattern";
}

TEST(Store, KnowsTheChildrenOfAJobAlsoWhenTheyEnded) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  const auto reader = *store->reader();
  const auto children = [&](std::uint32_t job, std::uint32_t limit = 10) {
    Numbers out;
    const auto rows = reader->children({job}, limit);
    for (const ChildRow& row : *rows) out.push_back(row.job.value);
    return out;
  };
  for (const std::uint32_t no : {1u, 2u}) commit(*store, one_job(no));
  core::JobHeader child;
  core::JobBody named;
  named.name = "child";
  child.after = {{.job = {1}, .index = 0}, {.job = {1}, .pass = true}, {.job = {2}}};
  for (const std::uint32_t no : {3u, 4u, 5u}) commit(*store, one_job(no, child, named));
  for (const std::uint32_t no : {1u, 2u}) progress(*store, no, core::JobState::completed, 10);
  progress(*store, 3, core::JobState::failed, 20);
  EXPECT_EQ(children(1), (Numbers{3, 4, 5}));
  EXPECT_EQ(children(2), (Numbers{3, 4, 5})) << "only waited for";
  EXPECT_EQ(children(1, 2), (Numbers{3, 4}));
  EXPECT_EQ(children(3), Numbers{});
  const ChildRow first = (*reader->children({1}, 1))[0];
  EXPECT_EQ(first.id, "3");
  EXPECT_EQ(first.name, "child");
  EXPECT_EQ(first.state, core::JobState::failed);
  EXPECT_EQ(numbers(*store->forget_ended({INT64_MAX}, {INT64_MAX}, 0, 10)), (Numbers{2, 3}));
  EXPECT_EQ(children(1), (Numbers{4, 5}));
}

TEST(Store, SparedJobsCountAmongThoseThatAreKept) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  for (std::uint32_t no = 1; no <= 5; ++no) {
    commit(*store, one_job(no));
    progress(*store, no, core::JobState::completed, no);
  }
  core::JobHeader child;
  child.after = {{.job = {1}, .pass = true}};
  commit(*store, one_job(6, child));
  EXPECT_EQ(numbers(*store->forget_ended({0}, {0}, 3, 10)), Numbers{2}) << "3, 4 and 5 are the newest three";
  EXPECT_EQ(numbers(*store->forget_ended({0}, {0}, 3, 10)), Numbers{});
}

TEST(Store, FindsTheNewestJobOfAUniqueWord) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  const auto reader = *store->reader();
  core::JobBody body;
  body.unique = "nightly";
  body.unique_for = Millis{1000};
  EXPECT_EQ(*reader->find_unique("nightly", {0}), std::nullopt);
  commit(*store, one_job(1, {}, body, 100));
  commit(*store, one_job(2, {}, {}, 100));
  EXPECT_EQ(*reader->find_unique("nightly", {INT64_MAX}), JobNo{1}) << "live";
  progress(*store, 1, core::JobState::completed, 150);
  EXPECT_EQ(*reader->find_unique("nightly", {101}), std::nullopt);
  EXPECT_EQ(*reader->find_unique("nightly", {100}), JobNo{1}) << "in the window";
  EXPECT_EQ(*reader->find_unique("", {0}), std::nullopt);
  body.unique_for = Millis{0};
  commit(*store, one_job(3, {}, body, 200));
  EXPECT_EQ(*reader->find_unique("nightly", {0}), JobNo{3});
  progress(*store, 3, core::JobState::completed, 210);
  // The word of 1 is not free before 1100.
  EXPECT_EQ(numbers(*store->forget_ended({INT64_MAX}, {1099}, 0, 10)), Numbers{3});
  EXPECT_EQ(numbers(*store->forget_ended({INT64_MAX}, {1100}, 0, 10)), Numbers{1});
}

TEST(Store, ListsDeadLettersByJobClassAndUser) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  for (std::uint32_t no = 1; no <= 3; ++no) {
    core::JobHeader header;
    header.user = no == 2 ? "eve" : "bob";
    Batch b = one_job(no, header);
    for (std::uint32_t i = 0; i < 6; ++i) {
      core::ResultBody body;
      body.value = "v", body.message = "m", body.traceback = "t", body.exception = "E",
      body.stage = core::Stage::upload;
      const auto end = i % 3 == 0   ? core::TaskEnd::completed
                       : i % 3 == 1 ? core::TaskEnd::failed
                                    : core::TaskEnd::cancelled;
      const auto failure = i < 3 ? core::FailureClass::exception : core::FailureClass::exit_code;
      b.records.emplace_back(core::TaskEnded{
          .task = TaskId::of({no}, i), .end = end, .failure = failure, .attempt = 2, .body = b.add(body), .at = {5}});
    }
    commit(*store, b);
  }
  const auto reader = *store->reader();
  const auto ids = [&](const DeadFilter& filter) {
    std::string out;
    for (const auto& o : take(reader->dead(filter))) {
      EXPECT_EQ(o.end, core::TaskEnd::failed);
      out += std::to_string(o.task.job().value) + "/" + std::to_string(o.task.index()) + " ";
    }
    return out;
  };
  DeadFilter filter;
  EXPECT_EQ(ids(filter), "3/4 3/1 2/4 2/1 1/4 1/1 ");
  filter.limit = 3;
  EXPECT_EQ(ids(filter), "3/4 3/1 2/4 ");
  filter.before = TaskId::of({2}, 4);
  EXPECT_EQ(ids(filter), "2/1 1/4 1/1 ");
  filter.failure = core::FailureClass::exit_code;
  EXPECT_EQ(ids(filter), "1/4 ");
  filter.before.reset();
  filter.user = "bob";
  EXPECT_EQ(ids(filter), "3/4 1/4 ");
  filter.failure.reset();
  filter.job = JobNo{1};
  EXPECT_EQ(ids(filter), "1/4 1/1 ");
  filter.user = "eve";
  EXPECT_EQ(ids(filter), "");
  filter = {};
  filter.limit = 0;
  EXPECT_EQ(ids(filter), "");

  filter.limit = 1;
  const auto row = take(reader->dead(filter)).at(0);
  EXPECT_EQ(row.body.value + row.body.traceback, "");
  EXPECT_EQ(row.body.message + row.body.exception, "mE");
  EXPECT_EQ(row.body.stage, core::Stage::upload);
  EXPECT_EQ(row.attempt, 2u);

  std::string unhappy;
  for (const auto& o : take(reader->unhappy({2}))) unhappy += std::to_string(o.task.index()) + " ";
  EXPECT_EQ(unhappy, "1 2 4 5 ");

  // What is forgotten is not listed, though its rows may still be there.
  progress(*store, 3, core::JobState::failed, 1);
  ASSERT_EQ(store->forget_ended({2}, {2}, 100, 10)->size(), 1u);
  EXPECT_EQ(ids({}), "2/4 2/1 1/4 1/1 ");
}

TEST(Store, KeepsSchedules) {
  const Scratch scratch;
  const ScheduleRow row{.name = "nightly",
                        .cron = "0 3 * * *",
                        .file = "{\"name\":\"it's\"}",
                        .user = "eve",
                        .paused = true,
                        .overlap = false,
                        .catch_up = true,
                        .next = {77},
                        .last = {55},
                        .last_job = "nightly-5",
                        .runs = 6,
                        .left_out = 1,
                        .last_error = "full"};
  {
    const auto store = open_at(scratch.path());
    ASSERT_TRUE(store->put_schedule({.name = "nightly", .cron = "* * * * *"}).ok());
    ASSERT_TRUE(store->put_schedule({.name = "hourly"}).ok());
    ASSERT_TRUE(store->put_schedule(row).ok());
    ASSERT_TRUE(store->forget_all().ok());
  }
  const auto store = open_at(scratch.path());
  const auto reader = *store->reader();
  const auto rows = take(reader->schedules());
  ASSERT_EQ(rows.size(), 2u) << "what people set up is not cleared";
  EXPECT_EQ(rows[0].name, "hourly");
  EXPECT_TRUE(rows[0].overlap);
  const ScheduleRow& r = rows[1];
  EXPECT_EQ(r.name + r.cron + r.file + r.user + r.last_job + r.last_error,
            row.name + row.cron + row.file + row.user + row.last_job + row.last_error);
  EXPECT_TRUE(r.paused && !r.overlap && r.catch_up);
  EXPECT_EQ(r.next, row.next);
  EXPECT_EQ(r.last, row.last);
  EXPECT_EQ(r.runs * 10 + r.left_out, 61u);
  EXPECT_TRUE(*store->drop_schedule("nightly"));
  EXPECT_FALSE(*store->drop_schedule("nightly"));
  EXPECT_EQ(take(reader->schedules()).size(), 1u);
}

TEST(Store, AnOpenJobGrows) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  const auto reader = *store->reader();
  core::JobHeader header;
  header.open = true;
  header.count = 0;
  commit(*store, one_job(1, header));
  Batch b;
  core::JobBody more;
  more.pages = {{3, {1, 1}, "xy"}};
  more.blobs = {fake_sha(9)};
  b.records.emplace_back(core::JobExtended{{1}, 0, 3, core::kNoBody});
  b.records.emplace_back(core::JobExtended{{1}, 3, 2, b.add(more)});
  b.records.emplace_back(core::JobProgressed{.job = {1}, .counts = {}, .count = 5, .open = true, .opened = true});
  commit(*store, b);
  EXPECT_EQ((*reader->job({1}))->count, 5u);
  EXPECT_TRUE((*reader->job({1}))->open);
  EXPECT_EQ((*reader->totals()).tasks_submitted, 5u);
  EXPECT_FALSE((*reader->page({1}, 2)).has_value()) << "no arguments";
  EXPECT_EQ(*reader->page_after({1}, 0), 3u);
  EXPECT_EQ((*reader->page({1}, 4))->bytes, "xy");
  EXPECT_TRUE(*reader->blob_in_use(fake_sha(9)));
  const auto loaded = *store->load();
  ASSERT_EQ(loaded.jobs.size(), 1u);
  EXPECT_EQ(loaded.jobs[0].header.count, 5u);
  EXPECT_TRUE(loaded.jobs[0].header.open);
  EXPECT_TRUE(loaded.jobs[0].progress.open);
}

TEST(Store, KeysOfExtendsStayAsLongAsTheirJob) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  const auto reader = *store->reader();
  for (const std::uint32_t job : {1u, 2u}) {
    Batch b = one_job(job);
    b.records.emplace_back(core::JobExtended{{job}, 0, 3, core::kNoBody, "a"});
    b.records.emplace_back(core::JobExtended{{job}, 3, job, core::kNoBody, "b'"});
    b.records.emplace_back(
        core::JobProgressed{.job = {job}, .state = core::JobState::completed, .counts = {}, .ended = {5}});
    commit(*store, b);
  }
  EXPECT_EQ(*reader->find_extend({1}, "a"), 3u);
  EXPECT_EQ(*reader->find_extend({1}, "b'"), 4u);
  EXPECT_EQ(*reader->find_extend({2}, "b'"), 5u);
  EXPECT_FALSE((*reader->find_extend({1}, "c")).has_value());
  ASSERT_EQ(store->forget_ended({0}, {100}, 1, 1)->size(), 1u);
  EXPECT_FALSE((*reader->find_extend({1}, "a")).has_value());
  EXPECT_EQ(*reader->find_extend({2}, "a"), 3u);
  ASSERT_TRUE(store->forget_all().ok());
  EXPECT_FALSE((*reader->find_extend({2}, "a")).has_value());
}

TEST(Store, AnEndedTaskIsNotKept) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  const auto reader = *store->reader();
  core::JobHeader header;
  header.count = 4;
  commit(*store, one_job(1, header));
  const TaskId task = TaskId::of({1}, 2);  // never handed out
  const auto run = [&](std::vector<core::Record> records, bool ok) {
    EXPECT_EQ(store->commit({records, {}}).ok(), ok);
  };
  run({core::TaskKept{.task = task, .parked = true}}, true);
  EXPECT_EQ(reader->kept({1})->size(), 1u);
  EXPECT_EQ((*store->load()).tasks.size(), 1u);
  // Ended in a batch that fails, then in one that does not; kept and ended at once; ended, taken back and ended again.
  run({core::TaskEnded{.task = task}, core::TaskEnded{.task = task}}, false);
  EXPECT_EQ(reader->kept({1})->size(), 1u);
  run({core::TaskEnded{.task = task}}, true);
  EXPECT_EQ(reader->kept({1})->size(), 0u);
  EXPECT_EQ((*store->load()).jobs.at(0).skipped, Numbers{2});
  const TaskId other = TaskId::of({1}, 3);
  run({core::TaskKept{.task = other, .attempt = 2}, core::TaskEnded{.task = other}}, true);
  EXPECT_EQ(reader->kept({1})->size(), 0u);
  run({core::TaskReopened{other}, core::TaskKept{.task = other, .attempt = 3}}, true);
  EXPECT_EQ(reader->kept({1})->size(), 1u);
  run({core::TaskEnded{.task = other}, core::TaskReopened{other}, core::TaskKept{.task = other, .attempt = 4}}, true);
  EXPECT_EQ(reader->kept({1})->size(), 1u);
  run({core::TaskEnded{.task = other}}, true);
  EXPECT_EQ(reader->kept({1})->size(), 0u);
}

TEST(Store, UsersAreRemembered) {
  const Scratch scratch;
  const auto store = open_at(scratch.path());
  const auto set = [&](const std::string& user, const core::UserLimits& limits) {
    const std::vector<core::Record> records{core::UserSet{user, limits}};
    ASSERT_TRUE(store->commit({records, {}}).ok());
  };
  set("", {.weight_milli = 2000});
  set("eve", {.max_queued = UINT64_MAX});
  set("bob", {.starts_per_minute = 5});
  set("bob", {.submits_per_minute = 6});
  ASSERT_TRUE(store->forget_all().ok());
  auto users = (*store->load()).users;
  ASSERT_EQ(users.size(), 3u);
  EXPECT_EQ(users[0].limits.weight_milli, 2000u);
  EXPECT_EQ(users[1].user, "bob");
  EXPECT_EQ(users[1].limits, (core::UserLimits{.submits_per_minute = 6}));
  EXPECT_EQ(users[2].limits.max_queued, UINT64_MAX);
  set("bob", {});
  EXPECT_EQ((*store->load()).users.size(), 2u) << "as anybody: no row";
}

TEST(Store, SaysDamageOfAHeaderThatMakesNoSense) {
  const Scratch scratch;
  {
    const auto store = open_at(scratch.path());
    commit(*store, one_job(1));
  }
  run_sql(scratch.path() + "/farm.db", "UPDATE jobs SET more = x'0107ff'");
  const auto store = open_at(scratch.path());
  const auto loaded = store->load();
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().cls, ErrorClass::storage_damaged) << loaded.error().message;
  const auto header = (*store->reader())->header({1});
  ASSERT_FALSE(header.ok());
  EXPECT_EQ(header.error().cls, ErrorClass::storage_damaged);
  Batch b;
  b.records.emplace_back(core::JobProgressed{.job = {1}, .counts = {}});
  const auto done = store->commit({b.records, b.bodies});
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().cls, ErrorClass::storage_damaged);
}

TEST(Codec, ReadsRequestsOfVersionOne) {
  // cpus 1500, gpus 2000, memory 5, disk 6, "py", {a=b, c=d}
  const std::string old(
      "\xdc\x0b\xd0\x0f\x05\x06\x02py\x02\x01"
      "a\x01"
      "b\x01"
      "c\x01"
      "d",
      18);
  core::Request want{.cpus_milli = 1500, .gpus_milli = 2000, .memory = 5, .disk = 6, .engine = "py"};
  want.labels = {{"a", "b"}, {"c", "d"}};
  core::Request request;
  request.pool = "of before";
  ASSERT_TRUE(unpack_request(old, request));
  EXPECT_EQ(request, want);
  EXPECT_EQ(pack_request(want), old) << "and writes the same where nothing new is asked for";
  want.labels[1].negate = true;
  want.model = "m", want.pool = "p", want.gpu_memory = 7, want.min_life = Millis{8};
  ASSERT_TRUE(unpack_request(pack_request(want), request));
  EXPECT_EQ(request, want);
}

TEST(Codec, APlainHeaderNeedsNothingMore) {
  EXPECT_EQ(pack_more({}), "");
  core::JobHeader header;
  ASSERT_TRUE(unpack_more("", header));
  EXPECT_FALSE(unpack_more("\x02", header)) << "of a version that is not known";
  header.result_ttl = Millis{-5};
  header.after = {{.job = {7}, .index = UINT32_MAX - 1}};
  const std::string packed = pack_more(header);
  for (std::size_t cut = 2; cut < packed.size(); ++cut) {
    core::JobHeader part;
    (void)unpack_more(packed.substr(0, cut), part);
  }
  core::JobHeader same;
  ASSERT_TRUE(unpack_more(packed, same));
  EXPECT_EQ(same.after, header.after);
  EXPECT_EQ(same.result_ttl, header.result_ttl);
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
    core::JobHeader header;
    if (unpack_more("\x01" + bytes, header)) {
      EXPECT_GT(header.nodes, 0u);
    }
    if (unpack_sizes(bytes, 50, sizes)) {
      EXPECT_EQ(sizes.size(), 50u);
    }
    EXPECT_LE(sizes.size(), 50u);
  }
}

}  // namespace
}  // namespace grange::store
