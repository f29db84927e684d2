// Races on a whole server, with workers that a test speaks for.
#include <fstream>

#include "server/server_testing.hpp"

namespace grange::server::testing {
namespace {

namespace json = boost::json;

pb::Hello racer(const std::string& id, const std::string& session, const std::string& name) {
  pb::Hello hello;
  hello.set_role(pb::ROLE_WORKER);
  hello.set_session_id(session);
  pb::WorkerHello& worker = *hello.mutable_worker();
  worker.set_worker_id(id);
  worker.set_name(name);
  worker.set_window(8);
  pb::Manifest& manifest = *worker.mutable_manifest();
  manifest.set_hostname(name);
  manifest.set_slots(2);
  manifest.set_cpus_milli(2000);
  manifest.add_engines("compute");
  (*manifest.mutable_labels())["grange.worker"] = id;
  return hello;
}

// Counts primes up to 1000, as far as anybody can tell. wall: what its tasks are said to take.
void count_primes(ProtoPeer& worker, std::uint32_t tasks, double wall,
                  const std::string& event = R"({"line":"Progress: 45%"})") {
  std::uint32_t acknowledged = 0;
  for (int beats = 0; acknowledged < tasks;) {
    const auto frame = worker.next(300ms);
    if (!frame) {  // what was out when the server ended waits for a lease
      ASSERT_LT(++beats, 60) << acknowledged << " of " << tasks;
      pb::Frame beat;
      beat.mutable_heartbeat()->set_window(8);
      worker.send(beat);
      continue;
    }
    if (!frame->has_orders()) continue;
    for (const pb::Assignment& assign : frame->orders().assign()) {
      pb::Frame begin;
      pb::Fence& fence = *begin.mutable_report()->add_started();
      fence.set_task(assign.task());
      fence.set_attempt(assign.attempt());
      fence.set_epoch(assign.epoch());
      for (const auto& [type, data] : {std::pair<std::string, std::string>{"compute_line", event},
                                       {"compute_line", "no json"},
                                       {"run_lifecycle", R"({"type":"run_end"})"}}) {
        pb::EngineEvent& said = *begin.mutable_report()->add_events();
        said.set_task(assign.task());
        said.set_attempt(assign.attempt());
        said.set_epoch(assign.epoch());
        said.set_type(type);
        said.set_data_json(data);
      }
      worker.send(begin);
      pb::Frame report;
      pb::TaskResult& result = *report.mutable_report()->add_results();
      result.set_task(assign.task());
      result.set_attempt(assign.attempt());
      result.set_epoch(assign.epoch());
      result.set_ok(true);
      result.set_value(boost::json::serialize(json::object{{"engine", "compute"},
                                                           {"op", "primes"},
                                                           {"algorithm", "segmented_sieve"},
                                                           {"n", 1000},
                                                           {"primes_found", 168},
                                                           {"correct", true},
                                                           {"wall_seconds", wall},
                                                           {"primes_per_s", 168 / wall}}));
      worker.send(report);
    }
    acknowledged += static_cast<std::uint32_t>(frame->orders().acks_size());
  }
}

class Runs : public Whole {
 protected:
  std::unique_ptr<ProtoPeer> join(const std::string& id, const std::string& name, const std::string& session = "s") {
    auto worker = std::make_unique<ProtoPeer>(loop_, ws(), racer(id, session + id, name));
    const auto welcome = worker->next();
    EXPECT_TRUE(welcome && welcome->has_welcome());
    return worker;
  }
  std::string post(const std::string& body) {
    const auto answer = ask("POST", "/api/runs", body);
    EXPECT_EQ(answer.status, 201) << answer.body;
    auto value = wire::parse_json(answer.body);
    return value && value->as_object().contains("run_id") ? std::string(value->at("run_id").get_string()) : "";
  }
  std::string file(const std::string& run, const std::string& name) {
    std::ifstream in(folder_.path() + "/results/runs/" + run + "/" + name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  json::object ended(const std::string& run) {
    const json::value value = get("/api/runs/" + run + "?wait=20");
    EXPECT_NE(value.at("status"), "running") << boost::json::serialize(value);
    // The answer does not wait for the files: they are for later.
    for (int i = 0; i < 1000 && !written(run); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return value.as_object();
  }
  bool written(const std::string& run) {
    return !file(run, "summary.json").empty() &&
           file(run, "metadata.json").find("\"status\":\"running\"") == std::string::npos;
  }
};

TEST_F(Runs, TheSameWorkOnEachMachineAndWhatCameOfIt) {
  start();
  const auto fast = join("w1", "macbook"), slow = join("w2", "macmini");
  const json::value checked = get("/api/runs/preflight?kind=compute&n=1000&workers=macbook,nobody");
  EXPECT_EQ(checked.at("machines").as_array().size(), 2u);
  EXPECT_EQ(checked.at("machines").at(0).at("chosen"), true);
  EXPECT_EQ(ask("POST", "/api/runs", R"({"kind":"llm","model":"m","prompt":"p"})").status, 409);
  EXPECT_EQ(ask("POST", "/api/runs", R"({"kind":"compute","repats":3})").status, 400);
  EXPECT_EQ(get("/api/runs").as_array().size(), 0u);

  const std::string id = post(R"({"kind":"compute","n":1000,"repeats":3,"warmup":1})");
  ASSERT_EQ(id.size(), 24u) << id;
  EXPECT_EQ(id[10], '_');
  EXPECT_EQ(ask("DELETE", "/api/runs/" + id).status, 409) << "it goes on";
  count_primes(*fast, 4, 0.5);
  count_primes(*slow, 4, 1.5);
  const json::object run = ended(id);
  EXPECT_EQ(run.at("status"), "completed");
  const json::value& machines = run.at("summary").at("machines");
  EXPECT_EQ(machines.at("macbook").at("primes_found"), 168);
  EXPECT_EQ(machines.at("macmini").at("wall_seconds"), 1.5);
  EXPECT_EQ(machines.at("macmini").at("ok"), 3);
  EXPECT_EQ(run.at("summary").at("ranking").at("order").at(0), "macbook");

  const json::value metadata = *wire::parse_json(file(id, "metadata.json"));
  EXPECT_EQ(metadata.at("run_id"), id.c_str());
  EXPECT_EQ(metadata.at("status"), "completed");
  EXPECT_EQ(metadata.at("machines"), (json::array{"macbook", "macmini"}));
  EXPECT_EQ(metadata.at("settings").at("n"), 1000);
  EXPECT_EQ(wire::parse_json(file(id, "summary.json"))->at("macbook").at("primes_found"), 168);
  const std::string events = file(id, "events.ndjson");
  EXPECT_EQ(ask("GET", "/api/runs/" + id + "/events").body, events);
  std::map<std::string, int> types;
  std::stringstream lines(events);
  for (std::string line; std::getline(lines, line);) {
    const auto value = wire::parse_json(line);
    ASSERT_TRUE(value.ok()) << line;
    ++types[std::string(value->at("type").get_string())];
    EXPECT_EQ(value->at("run_id"), id.c_str());
    if (value->at("type") == "compute_line") {
      EXPECT_EQ(value->at("payload").at("line"), "Progress: 45%");
    }
  }
  EXPECT_EQ(types, (std::map<std::string, int>{
                       {"run_lifecycle", 4}, {"job_start", 8}, {"compute_line", 8}, {"compute_done", 8}}));

  const auto csv = ask("POST", "/api/runs/" + id + "/download");
  EXPECT_EQ(std::count(csv.body.begin(), csv.body.end(), '\n'), 9);
  EXPECT_NE(ask("GET", "/api/runs/" + id + "/export?format=html").body.find("<svg"), std::string::npos);
  EXPECT_EQ(wire::parse_json(ask("GET", "/api/runs/" + id + "/export?format=json").body)->at("run_id"), id.c_str());
  EXPECT_EQ(ask("GET", "/api/runs/" + id + "/export?format=pdf").status, 400);
  EXPECT_EQ(ask("POST", "/api/runs/" + id + "/cancel").status, 409);

  const std::string again = post(R"({"kind":"compute","n":1000,"repeats":3,"workers":["macbook"]})");
  count_primes(*fast, 3, 0.25);
  ended(again);
  const json::value compared = get("/api/runs/" + again + "/compare");
  ASSERT_EQ(compared.at("compared_with").as_array().size(), 1u);
  EXPECT_EQ(compared.at("compared_with").at(0).at("run_id"), id.c_str());
  EXPECT_EQ(compared.at("compared_with").at(0).at("machines").at("macbook").at("wall_seconds").at("ratio"), 0.5);
  const json::array listed = get("/api/runs?kind=compute").as_array();
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[0].at("run_id"), again.c_str());

  EXPECT_EQ(ask("DELETE", "/api/runs/" + id).status, 200);
  EXPECT_EQ(ask("DELETE", "/api/runs/" + id).status, 404);
  EXPECT_EQ(ask("GET", "/api/runs/" + id).status, 404);
  for (int i = 0; i < 200 && std::filesystem::exists(folder_.path() + "/results/runs/" + id); ++i)
    std::this_thread::sleep_for(20ms);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/results/runs/" + id));
}

TEST_F(Runs, GoesOnAfterARestart) {
  start();
  std::string id;
  {
    const auto worker = join("w1", "one");
    id = post(R"({"kind":"compute","n":1000,"repeats":4,"concurrency":[1,2]})");
    count_primes(*worker, 3, 1);
  }
  stop();
  start();
  const json::value half = get("/api/runs/" + id);
  EXPECT_EQ(half.at("status"), "running");
  const std::size_t done = half.at("summary").at("samples").as_array().size();
  EXPECT_GE(done, 3u) << "a fourth one's result may have been on its way";
  {
    const auto worker = join("w1", "one", "new");
    count_primes(*worker, static_cast<std::uint32_t>(8 - done), 1);
    const json::object run = ended(id);
    EXPECT_EQ(run.at("status"), "completed") << boost::json::serialize(run);
    EXPECT_EQ(run.at("summary").at("machines").at("one").at("ok"), 8);
    EXPECT_EQ(run.at("summary").at("samples").as_array().size(), 8u);
    EXPECT_NE(file(id, "events.ndjson").find("run_resumed"), std::string::npos);
  }
  stop();
  start();
  EXPECT_EQ(get("/api/runs/" + id).at("status"), "completed");
}

TEST_F(Runs, EndsWithoutAWorkerThatIsLost) {
  lease_ = Millis{600};
  heartbeat_ = Millis{200};
  start();
  auto here = join("w1", "here");
  auto gone = join("w2", "gone");
  const std::string id = post(R"({"kind":"compute","n":1000})");
  gone = nullptr;
  count_primes(*here, 1, 1);
  const json::object run = ended(id);
  EXPECT_EQ(run.at("status"), "partial");
  EXPECT_EQ(run.at("summary").at("machines").at("gone").at("status"), "lost");
  EXPECT_EQ(run.at("summary").at("machines").at("here").at("status"), "completed");
}

TEST_F(Runs, ACancelEndsItsJobs) {
  start();
  const auto worker = join("w1", "one");
  const std::string id = post(R"({"kind":"compute","n":1000,"repeats":5})");
  EXPECT_EQ(ask("POST", "/api/runs/" + id + "/cancel", R"({"reason":"enough"})").status, 200);
  const json::object run = ended(id);
  EXPECT_EQ(run.at("status"), "cancelled");
  const std::string job(run.at("summary").at("machines").at("one").at("jobs").at(0).get_string());
  EXPECT_EQ(get("/api/jobs/" + job + "?wait=8").at("status"), "cancelled");
}

TEST_F(Runs, ManyStartsAtOnceKeepTheLimit) {
  start();
  const auto worker = join("w1", "one");
  constexpr int kAsked = 90;
  std::mutex mutex;
  std::map<int, int> answers;
  std::vector<std::unique_ptr<net::HttpClient::Call>> calls;
  loop_.call([&] {
    for (int i = 0; i < kAsked; ++i) {
      calls.push_back(client_->send({.method = "POST",
                                     .url = server_->url() + "/api/runs",
                                     .headers = {},
                                     .body = R"({"kind":"compute","n":1000})"},
                                    [&](Result<net::ClientResponse> answer) {
                                      const std::lock_guard lock(mutex);
                                      ++answers[answer ? answer->status : 0];
                                    }));
    }
  });
  const auto told = [&] {
    const std::lock_guard lock(mutex);
    int all = 0;
    for (const auto& [status, count] : answers) all += count;
    return all;
  };
  for (int i = 0; i < 1000 && told() < kAsked; ++i) std::this_thread::sleep_for(20ms);
  loop_.call([&] { calls.clear(); });
  EXPECT_EQ(answers, (std::map<int, int>{{201, 64}, {429, kAsked - 64}}));
}

TEST_F(Runs, SeedFoursOwnRoutes) {
  start();
  const auto worker = join("w1", "one");
  const auto refused = ask("POST", "/api/jobs", R"({"model":"m","prompt":"p","max_tokens":4})");
  EXPECT_EQ(refused.status, 409) << refused.body;  // a race that no machine can run, and no job without a command
  std::thread work([&] { count_primes(*worker, 1, 1); });
  const auto answer = ask("POST", "/api/compute?wait=20", R"({"algorithm":"segmented_sieve","n":1000,"threads":1})");
  work.join();
  EXPECT_EQ(answer.status, 200);
  const json::value result = *wire::parse_json(answer.body);
  EXPECT_EQ(result.at("ok"), true);
  EXPECT_EQ(result.at("primes_found"), 168);
  EXPECT_TRUE(result.as_object().contains("job_id"));
}

}  // namespace
}  // namespace grange::server::testing
