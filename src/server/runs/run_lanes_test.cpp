#include "server/runs/run_lanes.hpp"

#include <gtest/gtest.h>

#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

RunSpec lane_spec(const char* body) {
  auto read = read_run(wire::parse_json(body)->as_object());
  EXPECT_TRUE(read.ok()) << read.error().message;
  return read ? *read : RunSpec{};
}

pb::Service& service(pb::Manifest& manifest, const char* name, const char* kind, const char* state,
                     const char* model = "") {
  pb::Service& one = *manifest.add_services();
  one.set_name(name);
  one.set_kind(kind);
  one.set_state(state);
  if (*model != 0) one.add_models()->set_name(model);
  return one;
}

TEST(RunLanes, ALaneWaitsForItsService) {
  const RunSpec spec = lane_spec(R"({"model":"m","prompt":"p"})");
  const RunMachine on{.id = "w", .name = "w", .model = "m:latest"};
  pb::Manifest manifest;
  EXPECT_EQ(trouble_of(spec, on, manifest)->error, "service_down") << "none at all";
  pb::Service& ollama = service(manifest, "box", "ollama", "ready", "m:latest");
  service(manifest, "pictures", "comfyui", "down");
  EXPECT_FALSE(trouble_of(spec, on, manifest)) << "it is there";
  ollama.set_state("down");
  ollama.clear_models();
  ollama.set_note("Connection refused.");
  EXPECT_EQ(trouble_of(spec, on, manifest)->why, "its box is down (Connection refused)");
  EXPECT_EQ(trouble_of(spec, on, manifest)->error, "service_down");
  ollama.set_state("loading");
  EXPECT_EQ(trouble_of(spec, on, manifest)->why, "its box is loading");
  EXPECT_EQ(trouble_of(spec, on, manifest)->error, "") << "that may take as long as it takes";
  ollama.set_state("ready");
  EXPECT_EQ(trouble_of(spec, on, manifest)->error, "missing_model");

  service(manifest, "other", "llamacpp", "ready", "m");
  EXPECT_FALSE(trouble_of(spec, on, manifest)) << "another one serves it";
  EXPECT_TRUE(trouble_of(lane_spec(R"({"model":"m","prompt":"p","service":"box"})"), on, manifest));

  RunMachine forced = on;
  forced.forced = true;
  manifest.mutable_services()->DeleteSubrange(2, 1);
  EXPECT_FALSE(trouble_of(spec, forced, manifest)) << "whether it has the model is its own to find out";
  EXPECT_FALSE(trouble_of(lane_spec(R"({"model":"m","prompt":"p","allow_mock":true})"), on, {}));
  EXPECT_FALSE(trouble_of(lane_spec(R"({"kind":"compute"})"), on, {}));
  EXPECT_EQ(trouble_of(lane_spec(R"({"checkpoint":"c","prompt":"p"})"), {}, manifest)->why, "its pictures is down");
}

TEST(RunLanes, OrForItsTurn) {
  core::Explanation e;
  e.workers = {{.worker = {1}, .why = {{.code = "label", .text = "It is for one worker only."}}},
               {.worker = {2}, .could = true, .why = {{.code = "slots", .text = "Its only slot is taken."}}}};
  EXPECT_EQ(lane_waits_for(e, {2}), "Its only slot is taken");
  EXPECT_EQ(lane_waits_for(e, {7}), "");
  e.workers[1].now = true;
  EXPECT_EQ(lane_waits_for(e, {2}), "") << "it is about to start";
  e.waits = {{.code = "paused_farm", .text = "The whole queue is paused."}};
  EXPECT_EQ(lane_waits_for(e, {2}), "The whole queue is paused");
}

}  // namespace
}  // namespace grange::server
