// The image engine against a ComfyUI with the traps of the real one.
#include "worker/engines/comfy_double.hpp"
#include "worker/engines/comfy_messages.hpp"
#include "worker/engines/comfy_run.hpp"

namespace grange::worker {
namespace {

namespace json = boost::json;

constexpr ComfyTimes kQuick{.look = Millis{200}, .look_alone = Millis{50}, .look_soon = Millis{5}};

class Images : public EngineTest {
 protected:
  Images() {
    on_loop([&] {
      net::ListenerHandlers store;
      store.on_http = [this](HttpExchangePtr e) {
        blobs_put.push_back(e->request().body);
        e->respond({201, {}, ""});
      };
      blob_server = std::move(*net::listen(loop, {}, std::move(store)));
      stored = std::make_unique<Blobs>(
          loop, Blobs::Options{"http://127.0.0.1:" + std::to_string(blob_server->port()), "", scratch.file("cache2")},
          1);
      comfy = std::make_unique<ComfyDouble>(loop);
      services.add("comfyui", "comfyui", comfy->url(), {"a.safetensors"});
      here = std::make_unique<EngineContext>(EngineContext{loop, host, *stored, client, services, clock,
                                                           scratch.file("tasks"), "", "",
                                                           [this] { return inline_limit; }});
      engine = make_image_engine(*here, kQuick);
    });
  }
  ~Images() override {
    on_loop([&] {
      engine.reset();
      comfy.reset();
      blob_server.reset();
    });
    stored.reset();
  }
  static pb::JobSpec spec(
      const std::string& params = R"({"checkpoint":"a.safetensors","prompt":"{}","seed":5,"steps":4})") {
    pb::JobSpec out;
    out.mutable_image()->set_params_json(params);
    return out;
  }
  // By itself: it starts, makes steps, ends.
  void let_it_run() {
    on_loop([&] {
      comfy->on_submit = [this] {
        comfy->begin();
        comfy->step(1, 4);
        comfy->step(4, 4);
        comfy->finish();
      };
    });
  }
  json::object value() {
    json::object out;
    on_loop([&] { out = host.ends.back().value(); });
    return out;
  }
  pb::TaskResult result() {
    pb::TaskResult out;
    on_loop([&] { out = host.ends.back().result; });
    return out;
  }
  Bytes inline_limit = limits::kInline;
  std::unique_ptr<net::Listener> blob_server;
  std::vector<std::string> blobs_put;
  std::unique_ptr<Blobs> stored;
  std::unique_ptr<ComfyDouble> comfy;
  std::unique_ptr<EngineContext> here;
};

TEST_F(Images, FromParametersToBlobs) {
  let_it_run();
  run(spec(), 0, R"(["a cat"])");
  ASSERT_TRUE(ended());
  ASSERT_TRUE(result().ok()) << result().message();
  const json::object v = value();
  EXPECT_EQ(v.at("engine").as_string(), "comfyui");
  EXPECT_FALSE(v.at("cached").as_bool());
  EXPECT_EQ(v.at("exec_seconds").to_number<double>(), 2.5);
  ASSERT_EQ(v.at("images").as_array().size(), 2u);
  EXPECT_EQ(v.at("images").at(0).at("width").to_number<int>(), 64);
  EXPECT_EQ(v.at("images").at(1).at("width").to_number<int>(), 48);
  EXPECT_EQ(v.at("images").at(0).at("seed").to_number<int>(), 5);
  EXPECT_DOUBLE_EQ(v.at("seconds_per_image").to_number<double>(), v.at("wall_seconds").to_number<double>() / 2);
  EXPECT_EQ(v.at("params").at("prompt").as_string(), "a cat");
  ASSERT_EQ(result().files_size(), 2);
  EXPECT_EQ(result().files(0).path(), "grange_00001_.png");
  on_loop([&] {
    EXPECT_EQ(blobs_put.size(), 2u);
    EXPECT_EQ(host.of("image_progress").size(), 2u);
    EXPECT_EQ(host.of("image_progress").back().data.at("percent").to_number<double>(), 100);
    ASSERT_EQ(host.of("image_done").size(), 1u);
    EXPECT_EQ(comfy->last_prompt.at("prompt").at("3").at("inputs").at("seed").to_number<int>(), 5);
    EXPECT_EQ(comfy->features, "");  // previews were not asked for
  });
}

TEST_F(Images, AResultThatIsLargeIsPartOfOneUpload) {
  on_loop([&] { inline_limit = 16; });
  let_it_run();
  run(spec(), 0, R"(["a cat"])");
  ASSERT_TRUE(ended());
  ASSERT_TRUE(result().ok()) << result().message();
  EXPECT_FALSE(result().value_sha256().empty());
  on_loop([&] {
    EXPECT_EQ(blobs_put.size(), 3u);
    EXPECT_EQ(host.times(pb::STAGE_UPLOAD), 1);
  });
}

TEST_F(Images, SeedsDifferWhereNoneIsGiven) {
  let_it_run();
  const std::string params = R"({"checkpoint":"a.safetensors","prompt":"p"})";
  run(spec(params), 0);
  ASSERT_TRUE(ended(1));
  const auto first = value().at("params").at("seed");
  run(spec(params), 1);
  ASSERT_TRUE(ended(2));
  EXPECT_NE(value().at("params").at("seed"), first);
}

TEST_F(Images, AMissingCheckpointIsFoundBeforeTheSubmit) {
  for (const bool old : {true, false}) {
    on_loop([&] { comfy->traps.old_choices = old; });
    run(spec(R"({"checkpoint":"c.safetensors","prompt":"p"})"), old);
    ASSERT_TRUE(ended(old ? 1 : 2));
    EXPECT_EQ(result().exception(), "missing_checkpoint");
    EXPECT_NE(result().message().find("a.safetensors, b.safetensors"), std::string::npos) << result().message();
  }
  on_loop([&] { EXPECT_EQ(comfy->submits, 0); });
}

TEST_F(Images, ARefusedGraphIsClassified) {
  on_loop([&] {
    comfy->answer_400 = {
        {"error", {{"type", "missing_node_type"}, {"message", "Node 'Foo' not found"}, {"details", ""}}},
        {"node_errors", json::object()}};
  });
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(ended());
  EXPECT_EQ(result().failure(), pb::FAILURE_ENGINE);
  EXPECT_EQ(result().exception(), "missing_node");
}

// An answer of 200 may say that some outputs cannot be made.
TEST_F(Images, HalfAGraphIsRefusedAndTakenBack) {
  on_loop([&] { comfy->traps.half_wrong = true; });
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(ended());
  EXPECT_FALSE(result().ok());
  on_loop([&] { EXPECT_TRUE(comfy->empty()); });
}

TEST_F(Images, OutOfMemoryHasItsOwnFailure) {
  on_loop([&] {
    comfy->on_submit = [this] {
      comfy->begin();
      comfy->break_down("torch.OutOfMemoryError", "Allocation on device");
    };
  });
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(ended());
  EXPECT_EQ(result().failure(), pb::FAILURE_OUT_OF_MEMORY);
  EXPECT_EQ(result().exception(), "oom");
  on_loop([&] { EXPECT_TRUE(comfy->empty()); });
}

TEST_F(Images, WithoutAWebSocketTheHistoryDoes) {
  on_loop([&] { comfy->traps.no_socket = true; });
  let_it_run();
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(ended());
  EXPECT_TRUE(result().ok()) << result().message();
}

TEST_F(Images, ALostWebSocketIsDialledAgainAndLosesNothing) {
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(eventually([&] { return comfy->submits == 1; }));
  on_loop([&] {
    comfy->begin();
    comfy->socket->close(1001, "gone");
  });
  ASSERT_TRUE(eventually([&] { return comfy->dials >= 2; }));
  on_loop([&] { comfy->finish(false); });  // and says nothing of it
  ASSERT_TRUE(ended());
  EXPECT_TRUE(result().ok()) << result().message();
}

// {} although it was told to be through.
TEST_F(Images, TheHistoryMayComeLate) {
  on_loop([&] { comfy->traps.empty_history = 2; });
  let_it_run();
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(ended());
  EXPECT_TRUE(result().ok()) << result().message();
}

TEST_F(Images, AServiceThatForgotItIsNotWaitedFor) {
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(eventually([&] { return comfy->submits == 1; }));
  on_loop([&] { comfy->pending.clear(); });  // it was restarted
  ASSERT_TRUE(ended());
  EXPECT_NE(result().message().find("no longer knows"), std::string::npos) << result().message();
}

TEST_F(Images, AnOlderServiceNamesThePromptItself) {
  on_loop([&] { comfy->traps.own_ids = true; });
  let_it_run();
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(ended());
  EXPECT_TRUE(result().ok()) << result().message();
}

TEST_F(Images, WhatComesFromTheCacheIsSaid) {
  on_loop([&] {
    for (const char* node : {"3", "4", "5", "6", "7", "8", "9"}) comfy->cached.emplace_back(node);
  });
  let_it_run();
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(ended());
  EXPECT_TRUE(value().at("cached").as_bool());
}

TEST_F(Images, AStandstillEndsAndIsTakenBack) {
  pb::JobSpec job = spec();
  job.mutable_image()->set_stall_ms(200);
  run(job, 0, R"(["p"])");
  ASSERT_TRUE(eventually([&] { return comfy->submits == 1; }));
  on_loop([&] { comfy->begin(); });
  ASSERT_TRUE(ended());
  EXPECT_EQ(result().exception(), "timeout");
  on_loop([&] {
    EXPECT_TRUE(comfy->empty());
    EXPECT_EQ(comfy->global_interrupts, 0);
  });
}

TEST_F(Images, AStandstillThatNoWebSocketTellsOfEnds) {
  on_loop([&] { comfy->traps.no_socket = true; });
  pb::JobSpec job = spec();
  job.mutable_image()->set_stall_ms(300);
  run(job, 0, R"(["p"])");
  ASSERT_TRUE(eventually([&] { return comfy->submits == 1; }));
  on_loop([&] { comfy->begin(); });  // and never goes on
  ASSERT_TRUE(ended());
  EXPECT_EQ(result().exception(), "timeout");
  EXPECT_NE(result().message().find("/ws"), std::string::npos) << result().message();
  on_loop([&] { EXPECT_TRUE(comfy->empty()); });
}

TEST_F(Images, ACancelledOneLeavesTheQueueAndTouchesNoOther) {
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(eventually([&] { return comfy->submits == 1; }));
  on_loop([&] {
    comfy->running = "somebody-else";
    engine->stop(task_of(0), 1, StopHow::soft);
  });
  ASSERT_TRUE(ended());
  EXPECT_EQ(result().failure(), pb::FAILURE_CANCELLED);
  on_loop([&] {
    EXPECT_TRUE(comfy->pending.empty());
    EXPECT_EQ(comfy->running, "somebody-else");
    EXPECT_EQ(comfy->interrupts, 0);
  });
}

TEST_F(Images, ACancelledOneThatRunsIsInterrupted) {
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(eventually([&] { return comfy->submits == 1; }));
  on_loop([&] {
    comfy->begin();
    comfy->traps.deaf_interrupt = true;
    engine->stop(task_of(0), 1, StopHow::soft);
  });
  ASSERT_TRUE(eventually([&] { return comfy->interrupts > 1; }));
  on_loop([&] {
    EXPECT_TRUE(host.ends.empty());  // it still runs there
    comfy->interrupt();
  });
  ASSERT_TRUE(ended());
  on_loop([&] {
    EXPECT_TRUE(comfy->empty());
    EXPECT_EQ(comfy->global_interrupts, 0);
  });
}

// A hard stop ends the task at once; its prompt is taken back all the same.
TEST_F(Images, AHardStopCleansUpBehindTheTask) {
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(eventually([&] { return comfy->submits == 1; }));
  on_loop([&] {
    comfy->begin();
    engine->stop(task_of(0), 1, StopHow::hard);
    EXPECT_EQ(host.ends.size(), 1u);
  });
  EXPECT_TRUE(eventually([&] { return comfy->empty(); }));
}

// A worker that is killed in the middle: the next one cleans up.
TEST_F(Images, WhatAKilledWorkerLeftIsTakenBack) {
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(eventually([&] { return comfy->submits == 1; }));
  on_loop([&] {
    comfy->begin();
    engine.reset();  // as a crash: nothing of the engine's runs any more
  });
  on_loop([&] { EXPECT_FALSE(comfy->empty()); });
  on_loop([&] { engine = make_image_engine(*here, kQuick); });
  EXPECT_TRUE(eventually([&] { return comfy->empty(); }));
  EXPECT_TRUE(eventually([&] { return net::testing::contents(scratch.file("comfyui-open")).empty(); }));
}

TEST_F(Images, InterruptedBySomebodyElse) {
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(eventually([&] { return comfy->submits == 1; }));
  on_loop([&] {
    comfy->begin();
    comfy->interrupt();
  });
  ASSERT_TRUE(ended());
  EXPECT_NE(result().message().find("Somebody interrupted"), std::string::npos) << result().message();
}

TEST_F(Images, PreviewsAreShownWhenAskedFor) {
  pb::JobSpec job = spec();
  job.mutable_image()->set_previews(true);
  run(job, 0, R"(["p"])");
  ASSERT_TRUE(eventually([&] { return comfy->submits == 1 && !comfy->features.empty(); }));
  on_loop([&] {
    comfy->begin();
    comfy->step(1, 4);
    comfy->socket->send(std::string("\0\0\0\1\0\0\0\2", 8) + "picture", true);
    comfy->socket->send(std::string("\0\0\0\1\0\0\0\1", 8) + std::string(1'000'000, 'x'), true);  // too large
  });
  ASSERT_TRUE(eventually([&] { return !host.of("image_preview").empty(); }));
  on_loop([&] {
    const auto all = host.of("image_preview");
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(all[0].data.at("mime").as_string(), "image/png");
    EXPECT_EQ(all[0].data.at("base64").as_string(), "cGljdHVyZQ==");
    comfy->finish();
  });
  ASSERT_TRUE(ended());
}

TEST_F(Images, PicturesThatCannotBeHadAreAFailure) {
  on_loop([&] { comfy->traps.broken_view = 1; });
  let_it_run();
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(ended());
  EXPECT_NE(result().message().find("answered 404"), std::string::npos) << result().message();
}

TEST_F(Images, AWorkflowOfOnesOwn) {
  let_it_run();
  pb::JobSpec job;
  job.mutable_image()->set_workflow_json(
      R"({"1":{"class_type":"Foo","inputs":{"text":"say {}"}},"9":{"class_type":"SaveImage","inputs":{"images":["1",0]}}})");
  run(job, 0, R"(["hello"])");
  ASSERT_TRUE(ended());
  ASSERT_TRUE(result().ok()) << result().message();
  EXPECT_EQ(value().at("workflow").at("1").at("inputs").at("text").as_string(), "say hello");
  EXPECT_TRUE(value().at("params").is_null());
}

TEST_F(Images, AMockOnlyWhereItMay) {
  on_loop([&] { services.all.clear(); });
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(ended());
  EXPECT_EQ(result().exception(), "unreachable");
  pb::JobSpec job = spec();
  job.mutable_image()->set_allow_mock(true);
  run(job, 1, R"(["p"])");
  ASSERT_TRUE(ended(2));
  ASSERT_TRUE(result().ok()) << result().message();
  EXPECT_EQ(value().at("engine").as_string(), "mock");
  EXPECT_EQ(value().at("mock_reason").as_string(), "comfyui_unreachable");
  EXPECT_EQ(value().at("images").at(0).at("width").to_number<int>(), 256);
}

TEST_F(Images, AServiceThatDoesNotAnswerIsUnreachable) {
  on_loop([&] { comfy->listener.reset(); });
  run(spec(), 0, R"(["p"])");
  ASSERT_TRUE(ended());
  EXPECT_EQ(result().exception(), "unreachable");
  on_loop([&] { EXPECT_GT(services.looks, 0); });
}

TEST(ComfyMessages, SurviveAnyBytes) {
  for (const char* text :
       {"", "{", "[]", "null", "{\"type\":7}", "{\"type\":\"progress\",\"data\":[]}", "{\"type\":\"executing\"}",
        "{\"type\":\"progress_state\",\"data\":{\"nodes\":{\"1\":7}}}"}) {
    (void)read_comfy(text, false);
    (void)read_comfy(text, true);
    EXPECT_FALSE(read_queue(text, "x").has_value());
    EXPECT_FALSE(read_history(text, "x").has_value());
    EXPECT_FALSE(choices_of(text, "x", "y").has_value());
  }
  EXPECT_EQ(read_comfy(std::string("\0\0\0\4\xff\xff\xff\xff....", 12), true).type, ComfyEvent::Type::other);
  for (std::size_t n = 0; n < 40; ++n) {
    std::string whole("\0\0\0\4\0\0\0\x1a", 8);
    whole.append(R"({"image_type":"image/png"}xx)");
    const ComfyEvent one = read_comfy(whole.substr(0, n), true);
    EXPECT_EQ(one.type == ComfyEvent::Type::preview, n >= 34) << n;
  }
  EXPECT_FALSE(
      read_history(R"({"x":{"status":{"status_str":"error","messages":[[],["a"],[1,2],["execution_error",{}]]}}})", "x")
          ->ok);
}

TEST(ComfyMessages, PlacesInTheQueue) {
  const std::string body = R"({"queue_running":[[1,"r",{}]],"queue_pending":[[4,"late",{},{},[]],[2,"a"],[3,"b"]]})";
  EXPECT_EQ(read_queue(body, "r")->place, ComfyPlace::running);
  EXPECT_EQ(read_queue(body, "b")->place, ComfyPlace::pending);
  EXPECT_EQ(read_queue(body, "b")->ahead, 2u);
  EXPECT_EQ(read_queue(body, "late")->ahead, 3u);
  EXPECT_EQ(read_queue(body, "z")->place, ComfyPlace::absent);
}

TEST(ComfyMessages, NamesOfPromptsAreCanonical) {
  const std::string id = new_prompt_id();
  ASSERT_EQ(id.size(), 36u);
  EXPECT_EQ(id[14], '4');
  EXPECT_NE(std::string("89ab").find(id[19]), std::string::npos);
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef-"), std::string::npos);
  EXPECT_NE(id, new_prompt_id());
}

}  // namespace
}  // namespace grange::worker
