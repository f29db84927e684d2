// What a worker's health server tells of its machine, and what it does not do.
#include "worker/machine_pages.hpp"

#include <gtest/gtest.h>

#include "ai/json.hpp"
#include "net/http_client.hpp"
#include "worker/health.hpp"

namespace grange::worker {
namespace {

TEST(MachinePages, WhatAWorkerTellsOfItself) {
  pb::Manifest manifest;
  manifest.set_hostname("box");
  manifest.set_cpus_milli(2500);
  manifest.add_engines("llm");
  pb::Service& service = *manifest.add_services();
  service.set_name("ollama");
  service.set_kind("ollama");
  service.set_state("ready");
  pb::Model& model = *service.add_models();
  model.set_name("m");
  model.set_fit("GOOD");
  model.set_fit_json(R"({"weights_bytes":5})");
  const auto page = ai::parse_json(capabilities_json("w1", "a box", manifest));
  ASSERT_TRUE(page.has_value());
  EXPECT_EQ(page->at("worker_id").as_string(), "w1");
  EXPECT_EQ(page->at("hardware").at("cpus").to_number<double>(), 2.5);
  EXPECT_EQ(page->at("services").at(0).at("models").at(0).as_string(), "m");
  EXPECT_EQ(page->at("models").at(0).at("service").as_string(), "ollama");
  EXPECT_EQ(page->at("models").at(0).at("fit").as_string(), "GOOD");
  EXPECT_EQ(page->at("models").at(0).at("fit_numbers").at("weights_bytes").to_number<int>(), 5);

  LoadHistory history;
  EXPECT_TRUE(ai::parse_json(history.json())->at("now").is_null());
  pb::Heartbeat beat;
  beat.add_gpus()->set_percent(40);
  for (std::size_t i = 0; i <= LoadHistory::kSamples; ++i) {
    beat.set_cpu_percent(static_cast<double>(i));
    history.add(WallMs{static_cast<std::int64_t>(i)}, beat);
  }
  const auto load = ai::parse_json(history.json());
  ASSERT_EQ(load->at("samples").as_array().size(), LoadHistory::kSamples);
  EXPECT_EQ(load->at("samples").at(0).at("time_ms").to_number<int>(), 1) << "the oldest is gone";
  EXPECT_EQ(load->at("now").at("cpu_percent").to_number<std::size_t>(), LoadHistory::kSamples);
  EXPECT_EQ(load->at("now").at("gpus").at(0).at("percent").to_number<int>(), 40);
  EXPECT_TRUE(load->at("now").at("gpus").at(0).at("temperature_c").is_null()) << "not measured";
}

TEST(MachinePages, AreServedAndWorkIsNotTaken) {
  net::Loop loop;
  loop.start_thread();
  std::unique_ptr<net::Listener> server;
  loop.call([&] {
    HealthPages pages;
    pages.state = [] { return "healthy"; };
    pages.ready = [] { return true; };
    pages.status = [] { return "{}"; };
    pages.capabilities = [] { return R"({"models":[]})"; };
    pages.metrics = [] { return R"({"samples":[]})"; };
    pages.token = "secret";
    pages.server = "http://farm:8000";
    server = std::move(*serve_health(loop, "127.0.0.1", 0, pages));
  });
  {
    net::HttpClient client(loop);
    const auto ask = [&](const std::string& method, const std::string& path) {
      auto answer = client.fetch(
          {.method = method, .url = "http://127.0.0.1:" + std::to_string(server->port()) + path, .body = ""});
      EXPECT_TRUE(answer.ok());
      return answer ? std::move(*answer) : net::ClientResponse();
    };
    EXPECT_EQ(ask("GET", "/capabilities").body, R"({"models":[]})") << "from this machine without the token";
    EXPECT_EQ(ask("GET", "/api/agent/runtime_metrics").body, R"({"samples":[]})");
    for (const char* path :
         {"/jobs", "/api/compute", "/api/image/txt2img", "/api/reset", "/models/sync", "/api/comfy/sync_checkpoints"}) {
      const auto refused = ask("POST", path);
      EXPECT_EQ(refused.status, 405) << path;
      EXPECT_NE(refused.body.find("http://farm:8000/"), std::string::npos) << refused.body;
    }
    EXPECT_EQ(ask("GET", "/nothing").status, 404);
  }
  loop.call([&] { server.reset(); });
  loop.stop();
}

}  // namespace
}  // namespace grange::worker
