// Files of older versions.
#include <sqlite3.h>

#include <fstream>
#include <sstream>

#include "store/codec.hpp"
#include "store/model_for_test.hpp"
#include "store/schema.hpp"
#include "store/schema_v1_for_test.hpp"
#include "support/lossy_vfs.hpp"

namespace grange::store {
namespace {

using testing::fake_sha;
using testing::kSchemaV1;
using testing::Scratch;
using testing::take;

class Sql {
 public:
  explicit Sql(const std::string& path) { EXPECT_EQ(sqlite3_open(path.c_str(), &db_), SQLITE_OK); }
  ~Sql() { sqlite3_close(db_); }
  Sql(const Sql&) = delete;
  Sql& operator=(const Sql&) = delete;
  void run(const std::string& sql) const {
    ASSERT_EQ(sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db_) << "\n"
                                                                                    << sql;
  }
  std::string rows(const std::string& sql) const {
    std::string out;
    const auto add = [](void* to, int n, char** values, char**) {
      for (int i = 0; i < n; ++i)
        *static_cast<std::string*>(to) += std::string(values[i] != nullptr ? values[i] : "-") + " ";
      *static_cast<std::string*>(to) += "\n";
      return 0;
    };
    EXPECT_EQ(sqlite3_exec(db_, sql.c_str(), add, &out, nullptr), SQLITE_OK) << sqlite3_errmsg(db_);
    return out;
  }

 private:
  sqlite3* db_ = nullptr;
};

std::string shape_of(const std::string& path) {
  const Sql sql(path);
  return sql.rows(
             "SELECT t.name, c.cid, c.name, c.type, c.\"notnull\", c.dflt_value, c.pk FROM sqlite_schema t, "
             "pragma_table_info(t.name) c WHERE t.type = 'table' ORDER BY t.name, c.cid") +
         sql.rows("SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'index' ORDER BY name") +
         sql.rows("PRAGMA user_version") + sql.rows("PRAGMA application_id");
}

TEST(Migration, MakesTheSameTablesAsANewFileHas) {
  const Scratch old_file, new_file;
  static_assert(kApplicationId == 1735552615);
  Sql(old_file.path() + "/farm.db").run(kSchemaV1);
  for (const auto* scratch : {&old_file, &new_file}) {
    auto store = Store::open({.directory = scratch->path()});
    ASSERT_TRUE(store.ok()) << store.error().message;
  }
  EXPECT_EQ(shape_of(old_file.path() + "/farm.db"), shape_of(new_file.path() + "/farm.db"));
}

TEST(Migration, MakesTheSameTablesOfVersionTwo) {
  const Scratch old_file, new_file;
  for (const auto* scratch : {&old_file, &new_file}) ASSERT_TRUE(Store::open({.directory = scratch->path()}).ok());
  Sql(old_file.path() + "/farm.db")
      .run(
          "DROP TABLE tokens; DROP TABLE usage; DROP TABLE alerts; DROP TABLE alert_rules; "
          "DROP INDEX job_parents_parent; ALTER TABLE job_parents DROP COLUMN holds; "
          "CREATE INDEX job_parents_parent ON job_parents(parent); "
          "DROP TABLE extends; DROP TABLE runs; DROP TABLE history; ALTER TABLE jobs DROP COLUMN reason; "
          "ALTER TABLE workers DROP COLUMN forgotten; ALTER TABLE workers DROP COLUMN paused; "
          "ALTER TABLE workers DROP COLUMN quarantines; ALTER TABLE workers DROP COLUMN quarantined_until; "
          "PRAGMA user_version=2");
  const auto store = Store::open({.directory = old_file.path()});
  ASSERT_TRUE(store.ok()) << store.error().message;
  EXPECT_EQ(shape_of(old_file.path() + "/farm.db"), shape_of(new_file.path() + "/farm.db"));
}

TEST(Migration, FindsEverythingOfAFileOfVersionOne) {
  const Scratch scratch;
  {
    const Sql sql(scratch.path() + "/farm.db");
    sql.run("PRAGMA journal_mode=WAL");
    sql.run(kSchemaV1);
    // The request: 1 CPU, engine "python", label room=7.
    const std::string request = "x'e80700000006707974686f6e0104726f6f6d0137'";
    sql.run("INSERT INTO jobs VALUES(1,'first','k1','d1','n','eve','python',3,5," + request +
            ",4,100,200,2,1,1000,3,3,1,1,1,1100,1900)");
    sql.run("INSERT INTO jobs VALUES(2,NULL,NULL,'d2','n','bob','python',10,0," + request +
            ",3,1,2,5,0,2000,1,6,2,0,0,2100,0)");
    sql.run("INSERT INTO jobs VALUES(3,NULL,NULL,'d3','n','','python',1,0," + request +
            ",3,1,2,5,0,3000,0,0,0,0,0,0,0)");
    sql.run("INSERT INTO specs VALUES(1,x'01'),(2,x'02'),(3,x'03')");
    const auto task = [](std::uint32_t job, std::uint32_t index) {
      return std::to_string(TaskId::of({job}, index).packed);
    };
    sql.run("INSERT INTO pages VALUES(" + task(2, 0) + ",10,x'010a',x'" + std::string(20, '3') + "')");
    sql.run("INSERT INTO outcomes VALUES(" + task(1, 0) + ",1,0,1,7,1500,9,NULL,x'6f6b'),(" + task(1, 1) +
            ",2,5,2,7,1600,9,x'010362616408056162630a',NULL),(" + task(1, 2) + ",3,8,0,0,1700,0,NULL,NULL),(" +
            task(2, 1) + ",1,0,1,7,2200,9,NULL,NULL),(" + task(2, 4) + ",1,0,1,7,2200,9,NULL,NULL)");
    sql.run("UPDATE outcomes SET extra=x'0103626164' WHERE end=2");
    sql.run("INSERT INTO kept VALUES(" + task(2, 3) + ",3,2,1,2500),(" + task(2, 5) + ",9,300,0,0)");
    sql.run("INSERT INTO checkpoints VALUES(" + task(2, 3) + ",2,'" + fake_sha(4) + "',x'')");
    sql.run("INSERT INTO refs VALUES(" + task(2, 3) + ",3,'" + fake_sha(4) + "')");
    sql.run("INSERT INTO failures(task,job,attempt,worker,class,at,message) VALUES(" + task(2, 3) +
            ",2,1,7,5,2300,'boom')");
    sql.run("INSERT INTO workers VALUES(7,'w7','seven',x'',1,900,2300,3,1,27)");
    sql.run("INSERT INTO worker_failures VALUES(7,5,1)");
    sql.run("INSERT INTO models VALUES('m','1','" + fake_sha(5) + "',10,950)");
    sql.run("INSERT INTO meta VALUES('incarnation',6),('server_id','0123')");
    sql.run(
        "UPDATE totals SET jobs=3,pending=1,running=1,failed=1,tasks_submitted=14,tasks_completed=3,tasks_failed=1,"
        "tasks_cancelled=1,last_job=3,outcome_rows=5,page_rows=1,failure_rows=1");
  }
  for (int start = 0; start < 2; ++start) {  // once migrated, then as it is
    auto store = Store::open({.directory = scratch.path()});
    ASSERT_TRUE(store.ok()) << store.error().message;
    auto loaded = (*store)->load();
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    EXPECT_EQ(loaded->incarnation, 7u + static_cast<unsigned>(start));
    EXPECT_EQ(loaded->server_id, "0123");
    EXPECT_EQ(loaded->last_job, JobNo{3});
    EXPECT_FALSE(loaded->farm.paused);
    ASSERT_EQ(loaded->jobs.size(), 2u);
    const Loaded::Job& live = loaded->jobs[0];
    EXPECT_EQ(live.id, "2");
    EXPECT_EQ(live.open, (std::vector<std::uint32_t>{0, 2, 3, 5}));
    EXPECT_EQ(live.progress, (core::JobProgressed{.job = {2},
                                                  .state = core::JobState::running,
                                                  .next_index = 6,
                                                  .counts = {2, 0, 0},
                                                  .started = {2100},
                                                  .count = 10,
                                                  .opened = true}))
        << "it waits for nothing";
    core::JobHeader header;
    header.count = 10;
    header.request.engine = "python";
    header.request.labels = {{"room", "7"}};
    header.retry = {3, Millis{1}, Millis{2}, 5, {}};
    header.user = "bob";
    EXPECT_EQ(testing::describe_header(live.header), testing::describe_header(header));
    ASSERT_EQ(loaded->tasks.size(), 2u);
    core::FailureCounts failures{};
    failures[static_cast<std::size_t>(core::FailureClass::exception)] = 2;
    failures[static_cast<std::size_t>(core::FailureClass::worker_lost)] = 1;
    EXPECT_EQ(loaded->tasks[0].failures, failures);
    EXPECT_EQ(loaded->tasks[0].attempt, 3u);
    EXPECT_EQ(loaded->tasks[0].ready_at.ms, 2500);
    EXPECT_FALSE(loaded->tasks[0].parked);
    EXPECT_EQ(loaded->tasks[1].failures[static_cast<std::size_t>(core::FailureClass::exception)], 255);
    ASSERT_EQ(loaded->workers.size(), 1u);
    EXPECT_EQ(loaded->workers[0].id, "w7");
    EXPECT_TRUE(loaded->users.empty());

    const auto reader = *(*store)->reader();
    EXPECT_EQ(*reader->find_job("first"), JobNo{1});
    EXPECT_EQ((*reader->find_key("k1"))->second, "d1");
    const auto row = **reader->job({1});
    EXPECT_EQ(row.state, core::JobState::failed);
    EXPECT_EQ(row.counts, (core::JobCounts{1, 1, 1}));
    EXPECT_EQ(row.expires.ms, 0);
    EXPECT_TRUE(row.opened && !row.open && !row.paused);
    EXPECT_EQ(*reader->spec({2}), "\x02");
    EXPECT_EQ((*reader->page({2}, 9))->bytes, "3333333333");
    const auto outcomes = take(reader->outcomes({1}, 0, 10, true));
    ASSERT_EQ(outcomes.size(), 3u);
    EXPECT_EQ(outcomes[0].body.value, "ok");
    EXPECT_EQ(outcomes[1].body.message, "bad");
    EXPECT_EQ(outcomes[1].body.stage, core::Stage::none);
    EXPECT_EQ(take(reader->unhappy({1})).size(), 2u);
    EXPECT_EQ(take(reader->dead({})).at(0).task, TaskId::of({1}, 1));
    EXPECT_EQ((*reader->checkpoint(TaskId::of({2}, 3)))->data_sha256, fake_sha(4));
    EXPECT_TRUE(*reader->blob_in_use(fake_sha(4)));
    const auto failed = take(reader->failures({}, {}, 0, 0, 10)).at(0);
    EXPECT_EQ(failed.message, "boom");
    EXPECT_EQ(failed.stage, core::Stage::none);
    EXPECT_EQ(take(reader->failure_stats()).at(0).second.at(0).second, 1u);
    EXPECT_EQ(take(reader->workers()).at(0).completed, 3u);
    EXPECT_EQ(take(reader->list_models()).size(), 1u);
    const Totals totals = *reader->totals();
    EXPECT_EQ(totals.jobs * 100 + totals.tasks_submitted, 314u);
    EXPECT_EQ((*reader->info()).schema_version, kSchemaVersion);
  }
  // And it goes on.
  auto store = *Store::open({.directory = scratch.path()});
  ASSERT_TRUE(store->load().ok());
  const std::vector<core::Record> records{
      core::TaskEnded{.task = TaskId::of({2}, 3), .attempt = 3},
      core::JobProgressed{
          .job = {2}, .state = core::JobState::running, .next_index = 6, .counts = {3, 0, 0}, .count = 10}};
  ASSERT_TRUE(store->commit({records, {}}).ok());
  EXPECT_EQ(take((*store->reader())->kept({2})).size(), 1u);
}

TEST(Migration, APowerCutLeavesTheOldFileOrTheNewOne) {
  const Scratch scratch;
  const std::string path = scratch.path() + "/farm.db";
  {
    const Sql sql(path);
    sql.run(kSchemaV1);
    sql.run("INSERT INTO kept VALUES(4294967296,3,2,1,2500)");
    sql.run("UPDATE totals SET last_job=9");
  }
  std::stringstream image;
  image << std::ifstream(path).rdbuf();
  int cut = 0, done = 0;
  for (std::uint64_t n = 1; done < 3; ++n) {
    ASSERT_LT(n, 3000u);
    grange::testing::LossyDisk disk("lossy-migrate", n);
    disk.put("/farm/farm.db", image.str());
    disk.fault_at(n, grange::testing::Fault::power_off);
    const OpenOptions options{.directory = "/farm", .vfs = disk.name(), .farm_only = true};
    Store::open(options).ok() ? ++done : ++cut;
    disk.crash();
    auto store = Store::open(options);
    ASSERT_TRUE(store.ok()) << n << ": " << store.error().message;
    EXPECT_EQ((*store)->load()->last_job, JobNo{9});
    EXPECT_EQ(take((*(*store)->reader())->kept({1})).at(0).failures[5], 2) << n << ": once, not twice";
  }
  EXPECT_GT(cut, 50);
}

}  // namespace
}  // namespace grange::store
