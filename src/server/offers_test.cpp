// What workers offer while they are connected, and what of a person's words outlives a restart of the server.
#include <thread>

#include "server/server_testing.hpp"
#include "server/worker_codec.hpp"

namespace grange::server {
namespace {

using testing::ProtoPeer;

class Offers : public testing::Whole {
 protected:
  boost::json::object object(const net::ClientResponse& answer) {
    auto value = wire::parse_json(answer.body);
    EXPECT_TRUE(value.ok() && value->is_object()) << answer.body;
    return value && value->is_object() ? value->as_object() : boost::json::object();
  }
  std::int64_t figure(const std::string& name) {
    return get("/api/jobs/1").as_object().at(name).to_number<std::int64_t>();
  }
  bool becomes(const std::string& name, std::int64_t value) {
    for (int i = 0; i < 400; ++i) {
      if (figure(name) == value) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  }
};

pb::Service service(const std::string& name, const std::string& kind, const std::string& state = "ready") {
  pb::Service out;
  out.set_name(name);
  out.set_kind(kind);
  out.set_state(state);
  return out;
}
void add_model(pb::Service& to, const std::string& name, const std::string& fit, std::uint32_t most) {
  pb::Model& model = *to.add_models();
  model.set_name(name);
  model.set_kind("llm");
  model.set_fit(fit);
  model.set_max_context(most);
}

TEST(Capacity, HasTheModelsOfItsServicesThatFit) {
  pb::Manifest manifest;
  manifest.set_slots(1);
  manifest.add_models("plain");
  manifest.add_models("both");
  pb::Service ollama = service("ollama", "ollama");
  add_model(ollama, "good:latest", "GOOD", 8192);
  add_model(ollama, "tight:7b", "RISK", 2048);
  add_model(ollama, "short", "FAIL", 512);  // at its usual context; with less it fits
  add_model(ollama, "never", "FAIL", 0);
  add_model(ollama, "unknown", "UNKNOWN", 0);
  add_model(ollama, "both", "GOOD", 4096);
  add_model(ollama, std::string("no\nname"), "GOOD", 1);
  *manifest.add_services() = ollama;
  pb::Service other = service("llamacpp", "llamacpp");
  add_model(other, "tight:7b", "GOOD", 16384);
  add_model(other, "plain:latest", "GOOD", 0);
  *manifest.add_services() = other;
  pb::Service down = service("comfyui", "comfyui", "down");
  add_model(down, "away", "GOOD", 0);
  *manifest.add_services() = down;
  const auto capacity = to_capacity(manifest);
  ASSERT_TRUE(capacity.ok());
  EXPECT_EQ(capacity->models, (std::vector<std::string>{"both", "good", "good:latest", "plain", "plain:latest", "short",
                                                        "tight:7b", "unknown"}));
  EXPECT_EQ(capacity->contexts, (std::vector<std::uint32_t>{4096, 8192, 8192, 0, 0, 512, 16384, 0}));
}

TEST(Capacity, AManifestIsNotLong) {
  pb::Manifest manifest;
  manifest.add_services()->add_models()->set_name(std::string(2 << 20, 'm'));
  const auto capacity = to_capacity(manifest);
  ASSERT_FALSE(capacity.ok());
  EXPECT_EQ(capacity.error().cls, ErrorClass::too_large);
}

TEST(Capacity, AWorkerDoesNotSayWhichOneItIs) {
  using Labels = std::vector<std::pair<std::string, std::string>>;
  pb::Manifest manifest;
  (*manifest.mutable_labels())[std::string(kWorkerLabel)] = "another";
  (*manifest.mutable_labels())["zone"] = "a";
  auto capacity = to_capacity(manifest);
  ASSERT_TRUE(capacity.ok());
  label_as(*capacity, "w1");
  EXPECT_EQ(capacity->labels, (Labels{{"grange.worker", "w1"}, {"zone", "a"}}));
  core::Capacity bare;
  label_as(bare, "w2");
  EXPECT_EQ(bare.labels, (Labels{{"grange.worker", "w2"}}));
}

TEST_F(Offers, AJobForAMachineGoesToNoOtherThatTakesItsName) {
  start();
  pb::Hello hello = worker_hello("liar", "s1", 1);
  (*hello.mutable_worker()->mutable_manifest()->mutable_labels())["grange.worker"] = "w1";
  ProtoPeer liar(loop_, ws(), hello);
  ASSERT_TRUE(liar.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"labels":{"grange.worker":"w1"}})").status, 201);
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s2", 1));
  ASSERT_TRUE(worker.next()->has_welcome());
  work(worker, 1);
  EXPECT_EQ(get("/api/jobs/1").as_object().at("status").as_string(), "completed");
}

TEST_F(Offers, AModelThatCameStartsWhatWaitedForIt) {
  start();
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 2));
  ASSERT_TRUE(worker.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"needs_model":"m:8b","context":8192})").status, 201);
  EXPECT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"context":8192})").status, 400) << "of what model?";
  const auto say = [&](const std::string& fit, std::uint32_t most) {
    pb::Frame frame;
    pb::Manifest& manifest = *frame.mutable_report()->mutable_manifest();
    manifest = worker.hello().worker().manifest();
    pb::Service ollama = service("ollama", "ollama");
    ollama.set_version("0.5");
    add_model(ollama, "m:8b", fit, most);
    ollama.mutable_models(0)->set_fit_json(R"({"need_bytes":5})");
    *manifest.add_services() = ollama;
    worker.send(frame);
  };
  say("RISK", 4096);
  const auto shown = [&] { return get("/api/workers").as_array()[0].as_object().at("services").as_array(); };
  for (int i = 0; i < 400 && shown().empty(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto services = shown();
  ASSERT_EQ(services.size(), 1u);
  EXPECT_EQ(services[0].at("version").as_string(), "0.5");
  const auto& model = services[0].at("models").as_array().at(0).as_object();
  EXPECT_EQ(model.at("name").as_string(), "m:8b");
  EXPECT_EQ(model.at("max_context").to_number<int>(), 4096);
  EXPECT_EQ(model.at("fit_numbers").as_object().at("need_bytes").to_number<int>(), 5);
  const auto why = object(ask("GET", "/api/jobs/1/explain")).at("waits").as_array();
  ASSERT_FALSE(why.empty());
  EXPECT_EQ(why[0].at("code").as_string(), "model_fit");
  EXPECT_EQ(why[0].at("need").to_number<int>(), 8192);
  say("GOOD", 8192);
  work(worker, 1);
  EXPECT_EQ(get("/api/jobs/1").as_object().at("status").as_string(), "completed");
  // One that makes no sense is refused, and changes nothing.
  pb::Frame wrong;
  wrong.mutable_report()->mutable_manifest()->add_engines("a\nb");
  worker.send(wrong);
  auto refusal = worker.next();
  while (refusal && !refusal->has_error()) refusal = worker.next();
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(shown().size(), 1u);
}

TEST_F(Offers, WhatWaitsOnAWorkerIsAssignedAndDoesNotRun) {
  start();
  ProtoPeer worker(loop_, ws(), worker_hello("w1", "s1", 8));
  ASSERT_TRUE(worker.next()->has_welcome());
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"count":3})").status, 201);
  ASSERT_TRUE(becomes("assigned_tasks", 3));
  EXPECT_EQ(figure("running_tasks"), 0);
  EXPECT_EQ(figure("pending_tasks"), 0);
  const auto orders = worker.next();
  ASSERT_TRUE(orders && orders->has_orders());
  const pb::Assignment& first = orders->orders().assign(0);
  pb::Frame frame;
  pb::Fence& started = *frame.mutable_report()->add_started();
  started.set_task(first.task());
  started.set_attempt(first.attempt());
  started.set_epoch(first.epoch());
  worker.send(frame);
  ASSERT_TRUE(becomes("running_tasks", 1));
  EXPECT_EQ(figure("assigned_tasks"), 2);
  ProtoPeer client(loop_, ws(), client_hello("c1"));
  ASSERT_TRUE(client.next()->has_welcome());
  pb::Frame status;
  status.mutable_request()->set_id(1);
  status.mutable_request()->mutable_status()->set_job_id("1");
  client.send(status);
  const auto answer = client.next();
  ASSERT_TRUE(answer && answer->has_response());
  EXPECT_EQ(answer->response().job().running(), 1u);
  EXPECT_EQ(answer->response().job().assigned(), 2u);
}

TEST_F(Offers, WhatWasAddedOnceIsNotAddedAgainThoughTheServerWasRestarted) {
  start();
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"count":1,"open":true})").status, 201);
  const auto add = [&](const std::string& body) {
    const auto answer = ask("POST", "/api/jobs/1/tasks", body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return object(answer).at("total_tasks").to_number<int>();
  };
  for (int i = 0; i < 2; ++i) EXPECT_EQ(add(R"({"args":["a","b"],"key":"one"})"), 3);
  EXPECT_EQ(add(R"({"args":["c"],"key":"two"})"), 4);
  stop();
  start();
  EXPECT_EQ(add(R"({"args":["a","b"],"key":"one"})"), 3);
  EXPECT_EQ(figure("total_tasks"), 4);
  ProtoPeer client(loop_, ws(), client_hello("c1"));
  ASSERT_TRUE(client.next()->has_welcome());
  for (std::uint64_t id = 1; id <= 3; ++id) {
    pb::Frame frame;
    frame.mutable_request()->set_id(id);
    pb::ExtendRequest& extend = *frame.mutable_request()->mutable_extend();
    extend.set_job_id("1");
    extend.set_count(5);
    extend.set_key(id == 3 ? std::string(5000, 'k') : "three");
    client.send(frame);
    const auto answer = client.next();
    ASSERT_TRUE(answer && answer->has_response());
    if (id == 3) {
      EXPECT_EQ(answer->response().error().code(), "invalid_argument");
    } else {
      EXPECT_EQ(answer->response().job().count(), 9u);
    }
  }
}

TEST_F(Offers, TheReasonOfACancelIsToldOfTasksThatNobodyEverHad) {
  start();
  ASSERT_EQ(ask("POST", "/api/jobs", R"({"builtin":{"op":"echo"},"count":2})").status, 201);
  ASSERT_EQ(ask("POST", "/api/jobs/1/cancel", R"({"reason":"enough is enough"})").status, 200);
  get("/api/jobs/1?wait=8");
  for (int life = 0; life < 2; ++life) {
    const auto tasks = get("/api/jobs/1/tasks").as_array();
    ASSERT_EQ(tasks.size(), 2u);
    EXPECT_EQ(tasks[1].at("message").as_string(), "enough is enough");
    const auto why = object(ask("GET", "/api/jobs/1/tasks/1/explain"));
    EXPECT_NE(why.at("summary").as_string().find("enough is enough"), std::string::npos);
    stop();
    start();
  }
}

}  // namespace
}  // namespace grange::server
