// Models on machines over REST: what is listed, and which jobs are made.
#include "server/gateway/gateway_testing.hpp"

namespace grange::server::gateway {
namespace {

using namespace testing;

class MachineModels : public GatewayTest {
 protected:
  static pb::Service with(const std::string& kind, const std::string& model) {
    pb::Service out = service(kind);
    out.mutable_models(0)->set_name(model);
    return out;
  }
  boost::json::value body_of(const std::string& method, const std::string& path, const std::string& body, int status) {
    const auto answer = ask(method, path, body);
    EXPECT_EQ(answer.status, status) << method << " " << path << " " << body << ": " << answer.body;
    auto value = wire::parse_json(answer.body);
    return value ? *value : boost::json::value();
  }
  std::string refused(const std::string& method, const std::string& path, const std::string& body, int status) {
    const auto value = body_of(method, path, body, status);
    const auto* error = value.is_object() ? value.get_object().if_contains("error") : nullptr;
    return error != nullptr ? std::string(error->at("message").as_string()) : "";
  }
  // The job's table of the engine "models", and to whom it is pinned.
  boost::json::object spec_of(const boost::json::value& id) {
    const auto spec = get("/api/jobs/" + std::string(id.as_string()) + "/spec").as_object();
    boost::json::object out = spec.at("models").as_object();
    out["worker"] = spec.at("labels").at("grange.worker");
    return out;
  }
};

TEST_F(MachineModels, AreListedWithTheirPlaces) {
  const auto one = host("w1", with("ollama", "llama3.2:1b"));
  const auto two = host("w2", with("llamacpp", "llama3.2:1b"));
  const auto all = get("/api/models").at("models").as_array();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].at("name").as_string(), "llama3.2:1b");
  EXPECT_EQ(all[0].at("kind").as_string(), "llm");
  EXPECT_EQ(all[0].at("bytes").to_number<int>(), 123);
  ASSERT_EQ(all[0].at("where").as_array().size(), 2u);
  EXPECT_EQ(all[0].at("where").at(0).at("fit").as_string(), "GOOD");
  EXPECT_TRUE(all[0].at("where").at(0).at("connected").as_bool());
  EXPECT_EQ(get("/api/models?worker=w2").at("models").at(0).at("where").as_array().size(), 1u);
  EXPECT_EQ(ask("GET", "/api/models?worker=w3").status, 404);
}

TEST_F(MachineModels, SyncMakesAJobForEachWorkerThatCan) {
  const auto one = host("w1", with("ollama", "a"));
  const auto two = host("w2", with("llamacpp", "b"));
  for (const char* path : {"/models/sync", "/api/models/sync"}) {
    const auto jobs = body_of("POST", path, R"({"model":"qwen:0.5b"})", 201).at("jobs").as_array();
    ASSERT_EQ(jobs.size(), 1u) << "only one of them has an Ollama";
    EXPECT_EQ(jobs[0].at("worker_id").as_string(), "w1");
    const auto spec = spec_of(jobs[0].at("job_id"));
    EXPECT_EQ(spec.at("op").as_string(), "pull");
    EXPECT_EQ(spec.at("model").as_string(), "qwen:0.5b");
    EXPECT_EQ(spec.at("worker").as_string(), "w1");
  }
  const auto files =
      body_of("POST", "/api/models/sync", R"({"from":"http://files/x/m.gguf?a=1","workers":["w1","w2"]})", 201);
  ASSERT_EQ(files.at("jobs").as_array().size(), 2u);
  const auto spec = spec_of(files.at("jobs").at(1).at("job_id"));
  EXPECT_EQ(spec.at("op").as_string(), "fetch");
  EXPECT_EQ(spec.at("model").as_string(), "m.gguf");
  EXPECT_EQ(spec.at("worker").as_string(), "w2");
  const auto said = [&](const std::string& body, int status) {
    return refused("POST", "/api/models/sync", body, status);
  };
  EXPECT_NE(said(R"({"model":"x","workers":["w2"]})", 409).find("no Ollama"), std::string::npos);
  EXPECT_NE(said(R"({"model":"x","workers":["w11"]})", 404).find("no worker \"w11\""), std::string::npos);
  EXPECT_NE(said(R"({"model":"x","source":"ftp://x/y"})", 400).find("SHA-256"), std::string::npos);
  EXPECT_NE(said("{}", 400).find("\"model\""), std::string::npos);
  EXPECT_NE(said(R"({"model":7})", 400).find("\"model\""), std::string::npos);
  EXPECT_NE(said(R"({"model":"x","worker":"w1"})", 400).find("\"workers\"?"), std::string::npos);
  EXPECT_EQ(ask("POST", "/api/models/sync", "[]").status, 400);
}

TEST_F(MachineModels, CheckpointsGoToWhereAComfyIs) {
  const auto without = host("w1", with("ollama", "a"));
  EXPECT_NE(
      refused("POST", "/api/comfy/sync_checkpoints", R"({"checkpoint":"x.safetensors","source":"http://f/x"})", 409)
          .find("ComfyUI"),
      std::string::npos);
  EXPECT_NE(refused("POST", "/api/comfy/sync_checkpoints", R"({"checkpoint":"x.safetensors"})", 400).find("source"),
            std::string::npos);
  const std::string sha(64, 'a');
  const auto jobs =
      body_of("POST", "/api/comfy/sync_checkpoints",
              R"({"checkpoints":[{"source":"http://f/x.safetensors"},{"name":"y.safetensors","source":")" + sha +
                  R"("}],"workers":"w1"})",
              201)
          .at("jobs")
          .as_array();
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_EQ(spec_of(jobs[0].at("job_id")).at("folder").as_string(), "checkpoints");
  EXPECT_EQ(spec_of(jobs[0].at("job_id")).at("model").as_string(), "x.safetensors");
  EXPECT_EQ(spec_of(jobs[1].at("job_id")).at("sha256").as_string(), sha);
}

TEST_F(MachineModels, RemovalAndReset) {
  const auto one = host("w1", with("ollama", "org/name:latest"));
  const auto two = host("w2", with("llamacpp", "org/name"));
  const auto jobs = body_of("DELETE", "/api/models/org/name", "", 201).at("jobs").as_array();
  ASSERT_EQ(jobs.size(), 1u) << "from Ollama; a llama.cpp's own file is not ours";
  EXPECT_EQ(spec_of(jobs[0].at("job_id")).at("op").as_string(), "remove");
  EXPECT_EQ(spec_of(jobs[0].at("job_id")).at("model").as_string(), "org/name");
  EXPECT_NE(refused("DELETE", "/api/models/org/name", R"({"workers":["w2"]})", 404).find("w2"), std::string::npos);
  EXPECT_NE(refused("DELETE", "/api/models/org/nam", "", 404).find("org/name"), std::string::npos) << "the near one";
  EXPECT_EQ(ask("GET", "/api/models/org/name").status, 405);
  for (const char* path : {"/api/agents/w2/reset", "/api/workers/w2/reset"}) {
    const auto reset = body_of("POST", path, "", 201);
    EXPECT_EQ(spec_of(reset.at("job_id")).at("op").as_string(), "reset");
    EXPECT_EQ(spec_of(reset.at("job_id")).at("worker").as_string(), "w2");
  }
  EXPECT_NE(refused("POST", "/api/agents/w9/reset", "", 404).find("w9"), std::string::npos);
  EXPECT_NE(refused("POST", "/api/agents/w2/reset", R"({"service":"llamacp-1"})", 404).find("\"llamacpp-1\"?"),
            std::string::npos);
  EXPECT_EQ(ask("POST", "/api/agents/w2/reset", R"({"service":7})").status, 400);
  one->line().drop();
  EXPECT_TRUE([&] {
    for (int i = 0; i < 500; ++i) {
      if (ask("POST", "/api/workers/w1/reset", "").status == 409) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }()) << "not connected";
}

TEST_F(MachineModels, ComputeWantsToKnowWhat) {
  EXPECT_NE(refused("POST", "/api/compute", "{}", 400).find("\"n\""), std::string::npos);
  EXPECT_NE(refused("POST", "/api/compute", R"({"algorithm":"simple_sieve"})", 400).find("\"n\""), std::string::npos);
}

}  // namespace
}  // namespace grange::server::gateway
