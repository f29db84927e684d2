// The llm engine against scripted services, each with what it is known to do.
#include "worker/engines/engine_testing.hpp"
#include "worker/engines/llm_task.hpp"
#include "worker/engines/token_buffer.hpp"

namespace grange::worker {
namespace {

namespace json = boost::json;

// -------------------------------------------------------------------------------------------------------- arguments

pb::LlmSpec llm(const std::string& prompt = "", const std::string& op = "chat") {
  pb::LlmSpec out;
  out.set_op(op);
  out.set_model("m");
  out.set_prompt(prompt);
  return out;
}
TaskInput input(std::string args, std::vector<TaskInput::Parent> parents = {}) {
  return {std::move(args), std::move(parents)};
}
std::string said(const Result<ai::LlmCall>& call) {
  return call ? json::serialize(call->messages) : "error: " + call.error().message;
}

TEST(LlmTask, FormsOfTheArgument) {
  EXPECT_EQ(said(read_llm_task(llm(), 0, input(R"(["hi"])"))), R"([{"role":"user","content":"hi"}])");
  EXPECT_EQ(said(read_llm_task(llm("Say {}, {index}"), 4, input(R"(["{index}"])"))),
            R"([{"role":"user","content":"Say {index}, 4"}])");
  EXPECT_EQ(said(read_llm_task(llm("the spec's"), 0, input(R"(["given"])"))), R"([{"role":"user","content":"given"}])");
  EXPECT_EQ(said(read_llm_task(llm("the spec's"), 0, input("[]"))), R"([{"role":"user","content":"the spec's"}])");
  const std::string talk = R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])";
  EXPECT_EQ(said(read_llm_task(llm(), 0, input("[" + talk + "]"))), talk);
  EXPECT_EQ(said(read_llm_task(llm(), 0, input(talk))), talk);
  EXPECT_EQ(said(read_llm_task(llm(), 0, input(R"([{"role":"user","content":"a"}])"))),
            R"([{"role":"user","content":"a"}])");
  EXPECT_EQ(said(read_llm_task(llm("x"), 0, input(R"([{"prompt":"y","system":"be"}])"))),
            R"([{"role":"system","content":"be"},{"role":"user","content":"y"}])");
  EXPECT_EQ(said(read_llm_task(llm(), 0, input(R"([{"messages":)" + talk + "}]"))), talk);
}

TEST(LlmTask, OptionsOfTheArgumentWin) {
  pb::LlmSpec spec = llm("x");
  spec.set_options_json(R"({"max_tokens":5,"seed":1})");
  const auto call = read_llm_task(spec, 0, input(R"([{"options":{"seed":9}}])"));
  ASSERT_TRUE(call.ok()) << call.error().message;
  EXPECT_EQ(call->max_tokens, 5u);
  EXPECT_EQ(call->seed, 9u);
}

TEST(LlmTask, ParentsStandInForTheArgument) {
  const std::vector<TaskInput::Parent> one{{pb::ENCODING_JSON, R"({"engine":"ollama","text":"earlier"})"}};
  EXPECT_EQ(said(read_llm_task(llm("Go on: {}"), 0, input("", one))),
            R"([{"role":"user","content":"Go on: earlier"}])");
  EXPECT_EQ(said(read_llm_task(llm(), 0, input(R"(["own"])", one))), R"([{"role":"user","content":"own"}])");
  const std::vector<TaskInput::Parent> two{{pb::ENCODING_JSON, "\"a\""}, {pb::ENCODING_UNSPECIFIED, "plain words"}};
  EXPECT_EQ(said(read_llm_task(llm(), 0, input("", two))), R"([{"role":"user","content":"a\n\nplain words"}])");
}

TEST(LlmTask, WhatCannotBeMeantIsRefused) {
  for (const char* args : {"[1", R"(["a","b"])", R"([{"prompt":"a","messages":[]}])", R"([{"model":"other"}])",
                           R"([{"system":7}])", R"([{"options":7}])", R"([{"messages":"x"}])", "[]"}) {
    EXPECT_FALSE(read_llm_task(llm(), 0, input(args)).ok()) << args;
  }
  EXPECT_FALSE(read_llm_task(llm(), 0, input("", {{pb::ENCODING_PICKLE, "\x80"}})).ok());
  EXPECT_FALSE(read_llm_task(llm(), 0, input("", {{pb::ENCODING_UNSPECIFIED, "\xff"}})).ok());
}

TEST(TokenBuffer, CharactersLinesAndTime) {
  std::vector<std::string> out;
  TokenBuffer buffer({4, Micros{100}}, [&](const std::string& text, std::size_t n, bool thinking) {
    out.push_back(std::to_string(n) + (thinking ? "t:" : ":") + text);
  });
  buffer.add("a", false, {0});
  buffer.add("bc", false, {10});
  EXPECT_TRUE(out.empty());
  buffer.add("d", false, {20});
  EXPECT_EQ(out.back(), "3:abcd");
  buffer.add("äöü", false, {30});  // three characters
  EXPECT_FALSE(buffer.empty());
  buffer.add("\n", true, {40});  // thinking is kept apart
  EXPECT_EQ(out, (std::vector<std::string>{"3:abcd", "1:äöü", "1t:\n"}));
  buffer.add("x", false, {50});
  EXPECT_EQ(buffer.due().us, 150);
  buffer.add("y", false, {150});
  EXPECT_EQ(out.back(), "2:xy");
  buffer.flush();
  EXPECT_EQ(out.size(), 4u);
}

// ----------------------------------------------------------------------------------------------------------- engine

class Llm : public EngineTest {
 protected:
  Llm() {
    on_loop([&] { engine = make_llm_engine(*context); });
    spec.set_engine("llm");
    *spec.mutable_llm() = llm("hello");
  }
  // Answers each POST by the next of `scripts`, the last one for all that follow.
  using Script = std::function<void(HttpExchangePtr)>;
  std::unique_ptr<net::Listener> service(std::vector<Script> scripts, int* asked = nullptr) {
    return serve(
        net::testing::on_http([scripts = std::move(scripts), asked, n = std::size_t{0}](HttpExchangePtr e) mutable {
          if (asked != nullptr) ++*asked;
          scripts[std::min(n++, scripts.size() - 1)](std::move(e));
        }));
  }
  static Script answer(int status, std::string body, std::map<std::string, std::string> headers = {}) {
    return [=](HttpExchangePtr e) { e->respond({status, headers, body}); };
  }
  static Script stream(std::vector<std::string> pieces) {
    return [=](HttpExchangePtr e) {
      e->start_stream({200, {{"Content-Type", "application/x-ndjson"}}, ""});
      for (const std::string& one : pieces) e->write(one);
      e->end_stream();
    };
  }
  const HeardHost::End& end() {
    EXPECT_TRUE(ended());
    return host.ends.front();
  }
  pb::JobSpec spec;
};

const char* const kToken = R"({"model":"m","message":{"role":"assistant","content":"Hi"},"done":false})"
                           "\n";
const char* const kLast =
    R"({"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",)"
    R"("eval_count":7,"eval_duration":1000000000})"
    "\n";

TEST_F(Llm, OllamasCountsAndOurTimes) {
  std::string body;
  const auto server = service({[&](HttpExchangePtr e) {
    body = e->request().path + " " + e->request().body;
    stream({kToken, kToken, kLast})(e);
  }});
  services.add("ollama", "ollama", url(*server, ""), {"m:latest"});
  run(spec);
  ASSERT_TRUE(end().result.ok()) << end().result.message();
  const auto value = end().value();
  EXPECT_EQ(value.at("engine"), "ollama");
  EXPECT_EQ(value.at("service"), "ollama");
  EXPECT_EQ(value.at("text"), "HiHi");
  EXPECT_EQ(value.at("gen_tokens").to_number<int>(), 7);
  EXPECT_DOUBLE_EQ(value.at("gen_tokens_per_s").to_number<double>(), 7.0);
  EXPECT_TRUE(value.at("prompt_tokens").is_null());  // left out by the engine: not made up
  EXPECT_TRUE(value.at("ttft_ms").is_number());
  EXPECT_NE(body.find("/api/chat {"), std::string::npos);
  ASSERT_FALSE(host.of("llm_token").empty());
  std::string shown;
  std::uint64_t pieces = 0;
  for (const auto& one : host.of("llm_token")) {
    shown += one.data.at("text").get_string();
    pieces += one.data.at("n").to_number<std::uint64_t>();
  }
  EXPECT_EQ(shown, "HiHi");
  EXPECT_EQ(pieces, 2u);
  ASSERT_EQ(host.of("llm_done").size(), 1u);
  EXPECT_EQ(host.of("llm_done")[0].data.at("ok"), true);
  EXPECT_EQ(host.of("llm_done")[0].data.count("text"), 0u);
}

TEST_F(Llm, AnErrorInsideAStreamFails) {
  const auto server =
      service({stream({kToken, "{\"error\":\"llama-server process has terminated: CUDA error: out of memory\"}\n"})});
  services.add("ollama", "ollama", url(*server, ""));
  run(spec);
  EXPECT_FALSE(end().result.ok());
  EXPECT_EQ(end().result.failure(), pb::FAILURE_OUT_OF_MEMORY);
  EXPECT_EQ(end().result.exception(), "oom");
  ASSERT_EQ(host.of("llm_done").size(), 1u);
  EXPECT_EQ(host.of("llm_done")[0].data.at("error"), "oom");
}

TEST_F(Llm, BothFormsOfLlamacppsStreamError) {
  int n = 0;
  for (const char* text : {"error: {\"code\":500,\"message\":\"boom\",\"type\":\"server_error\"}\n\n",
                           "data: {\"error\":{\"code\":500,\"message\":\"boom\",\"type\":\"server_error\"}}\n\n"}) {
    const auto server = service({stream({": ping\n\n", text})});
    on_loop([&] {
      services.all.clear();
      services.add("llamacpp", "llamacpp", url(*server, ""), {"m.gguf"});
    });
    run(spec, static_cast<std::uint32_t>(n));
    ASSERT_TRUE(ended(static_cast<std::size_t>(++n)));
    EXPECT_FALSE(host.ends.back().result.ok());
    EXPECT_NE(host.ends.back().result.message().find("boom"), std::string::npos);
  }
}

TEST_F(Llm, FailsOverBeforeTheFirstTokenOnly) {
  int first = 0, second = 0;
  const auto busy = service(
      {answer(503, R"({"error":"server busy, please try again.  maximum pending requests exceeded"})")}, &first);
  const auto good = service({stream({kToken, kLast})}, &second);
  services.add("a", "ollama", url(*busy, ""));
  services.add("b", "ollama", url(*good, ""));
  run(spec);
  ASSERT_TRUE(end().result.ok()) << end().result.message();
  EXPECT_EQ(end().value().at("service"), "b");
  // After a token it is an honest error.
  const auto breaks = service({[](HttpExchangePtr e) {
    e->start_stream({200, {}, ""});
    e->write(kToken);
    e->end_stream();
  }});
  on_loop([&] { services.all[0].url = url(*breaks, ""); });
  run(spec, 1);
  ASSERT_TRUE(ended(2));
  EXPECT_FALSE(host.ends[1].result.ok());
  EXPECT_EQ(second, 1);
}

TEST_F(Llm, BusyAndLoadingAreNotForEver) {
  const auto busy = service({answer(429, R"({"error":"rate limit"})", {{"Retry-After", "7"}})});
  services.add("a", "ollama", url(*busy, ""));
  run(spec);
  EXPECT_FALSE(end().result.permanent());
  EXPECT_NE(end().result.message().find("after 7 s"), std::string::npos) << end().result.message();
  const auto loading =
      service({answer(503, R"({"error":{"code":503,"message":"Loading model","type":"unavailable_error"}})")});
  on_loop([&] {
    services.all.clear();
    services.add("b", "llamacpp", url(*loading, ""));
  });
  run(spec, 1);
  ASSERT_TRUE(ended(2));
  EXPECT_EQ(host.ends[1].result.exception(), "loading");
  EXPECT_FALSE(host.ends[1].result.permanent());
}

TEST_F(Llm, ADeadServiceIsUnreachable) {
  auto gone = service({answer(200, "")});
  const std::string where = url(*gone, "");
  gone.reset();
  services.add("a", "ollama", where);
  run(spec);
  EXPECT_EQ(end().result.exception(), "unreachable");
  EXPECT_FALSE(end().result.permanent());
  EXPECT_GT(services.looks, 0);  // the watcher is told
}

TEST_F(Llm, WhatIsMissingIsNamed) {
  run(spec);
  EXPECT_EQ(end().result.exception(), "unreachable");
  services.add("a", "ollama", "http://127.0.0.1:1", {"other"});
  run(spec, 1);
  ASSERT_TRUE(ended(2));
  EXPECT_EQ(host.ends[1].result.exception(), "missing_model");
  EXPECT_NE(host.ends[1].result.message().find("grange models sync m"), std::string::npos);
}

TEST_F(Llm, AMockOnlyWhereItIsAllowedAndLabelled) {
  spec.mutable_llm()->set_allow_mock(true);
  run(spec);
  ASSERT_TRUE(end().result.ok());
  EXPECT_EQ(end().value().at("engine"), "mock");
  EXPECT_EQ(end().value().at("mock_reason"), "ollama_unreachable");
  EXPECT_FALSE(host.of("llm_token").empty());
  on_loop([&] { services.add("a", "ollama", "http://127.0.0.1:1", {"other"}); });
  run(spec, 1);
  ASSERT_TRUE(ended(2));
  EXPECT_EQ(host.ends[1].value().at("mock_reason"), "missing_model");
  // After tokens of a real one, those who look on are told to forget them.
  const auto server = service({stream({kToken, "{\"error\":\"boom\"}\n"})});
  on_loop([&] {
    services.all.clear();
    services.add("a", "ollama", url(*server, ""));
  });
  run(spec, 2);
  ASSERT_TRUE(ended(3));
  EXPECT_EQ(host.ends[2].value().at("mock_reason"), "stream_error");
  EXPECT_EQ(host.of("llm_restart").size(), 1u);
  EXPECT_EQ(std::string(host.ends[2].value().at("text").get_string()).find("Hi"), std::string::npos);
}

TEST_F(Llm, ALargeResultIsUploadedOnceAndASmallOneNotAtAll) {
  spec.mutable_llm()->set_allow_mock(true);
  run(spec);
  ASSERT_TRUE(ended());
  on_loop([&] { EXPECT_EQ(host.times(pb::STAGE_UPLOAD), 0); });
  on_loop([&] {
    context->inline_limit = [] { return Bytes{16}; };
    engine = make_llm_engine(*context);
  });
  run(spec, 1);
  ASSERT_TRUE(eventually([&] { return host.times(pb::STAGE_UPLOAD) > 0; }));
  on_loop([&] {
    EXPECT_EQ(host.times(pb::STAGE_UPLOAD), 1);
    engine->stop(task_of(1), 1, StopHow{});  // there is no store here
  });
  ASSERT_TRUE(ended(2));
}

TEST_F(Llm, StopClosesTheConnection) {
  bool closed = false;
  HttpExchangePtr open;
  const auto server = service({[&](HttpExchangePtr e) {
    open = e;
    e->on_closed([&] { closed = true; });
    e->start_stream({200, {}, ""});
    e->write(kToken);
  }});
  services.add("ollama", "ollama", url(*server, ""));
  run(spec);
  ASSERT_TRUE(eventually([&] { return !host.of("llm_token").empty(); }));
  on_loop([&] { engine->stop(task_of(0), 1, StopHow::soft); });
  EXPECT_EQ(end().result.failure(), pb::FAILURE_CANCELLED);
  EXPECT_TRUE(eventually([&] { return closed; }));  // that is how the service learns to stop
  on_loop([&] { open.reset(); });
}

TEST_F(Llm, FrozenItReadsNothing) {
  HttpExchangePtr open;
  const auto server = service({[&](HttpExchangePtr e) {
    open = e;
    e->start_stream({200, {}, ""});
    e->write(kToken);
  }});
  services.add("ollama", "ollama", url(*server, ""));
  run(spec);
  ASSERT_TRUE(eventually([&] { return !host.of("llm_token").empty(); }));
  on_loop([&] {
    engine->freeze(task_of(0), 1, true);
    open->write(kToken);
    open->write(kLast);
    open->end_stream();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  on_loop([&] { EXPECT_TRUE(host.ends.empty()); });
  on_loop([&] { engine->freeze(task_of(0), 1, false); });
  ASSERT_TRUE(end().result.ok());
  EXPECT_EQ(end().value().at("text"), "HiHi");
  on_loop([&] { open.reset(); });
}

TEST_F(Llm, NoMoreAtOnceThanTheServiceTakes) {
  std::vector<HttpExchangePtr> open;
  std::size_t most = 0;
  const auto server = service({[&](HttpExchangePtr e) {
    open.push_back(e);
    most = std::max(most, open.size());
  }});
  services.add("llamacpp", "llamacpp", url(*server, ""), {"m"}, 2);
  for (std::uint32_t i = 0; i < 5; ++i) run(spec, i);
  ASSERT_TRUE(eventually([&] { return open.size() == 2; }));
  for (std::size_t done = 1; done <= 4; ++done) {
    if (done == 1) on_loop([&] { engine->stop(task_of(4), 1, StopHow::soft); });  // one that waits
    ASSERT_TRUE(eventually([&] { return !open.empty(); }));
    on_loop([&] {
      stream({"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n", "data: [DONE]\n\n"})(
          open.front());
      open.erase(open.begin());
    });
    ASSERT_TRUE(ended(done + 1));
  }
  EXPECT_EQ(most, 2u);
  EXPECT_EQ(std::count_if(host.ends.begin(), host.ends.end(), [](const auto& one) { return one.result.ok(); }), 4);
}

TEST_F(Llm, AnAnswerThatIsCompleteDoesNotWaitForItsConnection) {
  HttpExchangePtr open;
  const auto server = service({[&](HttpExchangePtr e) {
    open = e;
    e->start_stream({200, {}, ""});
    e->write(kToken);
    e->write(kLast);  // and the connection stays
  }});
  services.add("ollama", "ollama", url(*server, ""));
  run(spec);
  EXPECT_TRUE(end().result.ok());
  on_loop([&] { open.reset(); });
}

TEST_F(Llm, EmbeddingsAndKeys) {
  std::string authorization;
  const auto server = service({[&](HttpExchangePtr e) {
    authorization = e->request().headers["authorization"];
    e->respond(
        {200,
         {},
         R"({"object":"list","data":[{"index":0,"embedding":[1,2]}],"usage":{"prompt_tokens":3,"total_tokens":3}})"});
  }});
  services.add("o", "openai", url(*server, ""));
  services.all[0].key = "k";
  *spec.mutable_llm() = llm("text", "embed");
  run(spec);
  ASSERT_TRUE(end().result.ok()) << end().result.message();
  EXPECT_EQ(json::serialize(end().value().at("embeddings")), "[[1E0,2E0]]");
  EXPECT_EQ(authorization, "Bearer k");
}

TEST_F(Llm, AKeyThatAServiceRepeatsIsNotShown) {
  const std::string key = "local-key-0123456789";
  const auto server = service({answer(400, R"({"error":{"message":"bad header: Bearer )" + key + R"("}})")});
  services.add("o", "openai", url(*server, ""));
  services.all[0].key = key;
  run(spec);
  EXPECT_FALSE(end().result.ok());
  EXPECT_NE(end().result.message().find("bad header: Bearer [key]"), std::string::npos) << end().result.message();
  on_loop([&] {
    EXPECT_EQ(host.ends.front().result.message().find(key), std::string::npos);
    for (const auto& one : host.events) EXPECT_EQ(json::serialize(one.data).find(key), std::string::npos) << one.type;
  });
}

TEST_F(Llm, ABadArgumentIsNotTriedAgain) {
  run(spec, 0, "[1");
  EXPECT_EQ(end().result.failure(), pb::FAILURE_REFUSED);
  EXPECT_TRUE(end().result.permanent());
}

}  // namespace
}  // namespace grange::worker
