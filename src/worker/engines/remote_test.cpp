// The remote engine against doubles of OpenAI, Replicate and RunPod; and its rules.
#include <sys/stat.h>

#include <cstdlib>
#include <deque>

#include "worker/engines/base64.hpp"
#include "worker/engines/engine_testing.hpp"
#include "worker/engines/remote_rules.hpp"
#include "worker/engines/remote_run.hpp"
#include "worker/secrets.hpp"

namespace grange::worker {
namespace {

namespace json = boost::json;

constexpr const char* kKey = "sk-test-0123456789abcdef";
constexpr RemoteTimes kQuickPolls{.poll_first = Millis{20}, .poll_last = Millis{100}};

class Remotes : public EngineTest {
 protected:
  struct Asked {
    std::string what, body;
    std::map<std::string, std::string> headers;
  };
  Remotes() {
    on_loop([&] {
      net::ListenerHandlers handlers;
      handlers.on_http = [this](HttpExchangePtr e) { serve(std::move(e)); };
      server = std::move(*net::listen(loop, {}, std::move(handlers)));
      url = "http://127.0.0.1:" + std::to_string(server->port());
      stored = std::make_unique<Blobs>(loop, Blobs::Options{url, "", scratch.file("cache2")}, 1);
      here = std::make_unique<EngineContext>(EngineContext{
          loop, host, *stored, client, services, clock, scratch.file("tasks"), "", "", [] { return limits::kInline; }});
      engine = make_remote_engine(*here, kQuickPolls);
    });
  }
  ~Remotes() override {
    on_loop([&] {
      engine.reset();
      held.clear();
      server.reset();
    });
    stored.reset();
  }
  void add(const std::string& name, const std::string& kind) {
    on_loop([&] {
      services.add(name, kind, url);
      services.all.back().key = kKey;
    });
  }
  using Handler = std::function<void(HttpExchangePtr)>;
  // The answers to a request, in this order; the last one stays.
  void answer(const std::string& what, std::deque<Handler> with) {
    on_loop([&] { script[what] = std::move(with); });
  }
  static Handler says(std::string body, int status = 200, std::map<std::string, std::string> headers = {}) {
    return [=](HttpExchangePtr e) {
      auto all = headers;
      all["Content-Type"] = "application/json";
      e->respond({status, all, body});
    };
  }
  static Handler streams(std::vector<std::string> pieces) {
    return [=](HttpExchangePtr e) {
      e->start_stream({200, {{"Content-Type", "text/event-stream"}}, ""});
      for (const auto& one : pieces) e->write(one);
      e->end_stream();
    };
  }
  Handler holds() {
    return [this](HttpExchangePtr e) {
      e->on_closed([this] { ++closed; });
      held.push_back(std::move(e));
    };
  }
  void serve(HttpExchangePtr e) {
    const net::HttpRequest& request = e->request();
    const std::string what = request.method + " " + request.path;
    if (what.starts_with("PUT /api/blobs/")) {
      blobs_put.push_back(request.body);
      return e->respond({201, {}, ""});
    }
    asked.push_back({what, request.body, request.headers});
    auto& next = script[what];
    if (next.empty()) return e->respond({404, {}, "{}"});
    const Handler handler = next.front();
    if (next.size() > 1) next.pop_front();
    handler(std::move(e));
  }
  static pb::JobSpec job(const std::string& service, const std::string& op, const std::string& target,
                         const std::string& input, bool stream = false) {
    pb::JobSpec out;
    out.mutable_remote()->set_service(service);
    out.mutable_remote()->set_op(op);
    out.mutable_remote()->set_target(target);
    out.mutable_remote()->set_input_json(input);
    out.mutable_remote()->set_stream(stream);
    return out;
  }
  pb::TaskResult result() {
    pb::TaskResult out;
    on_loop([&] { out = host.ends.back().result; });
    return out;
  }
  json::object value() {
    json::object out;
    on_loop([&] { out = host.ends.back().value(); });
    return out;
  }
  std::size_t times(const std::string& what) {
    std::size_t n = 0;
    on_loop([&] {
      n = static_cast<std::size_t>(std::count_if(asked.begin(), asked.end(), [&](auto& a) { return a.what == what; }));
    });
    return n;
  }
  std::unique_ptr<net::Listener> server;
  std::string url;
  std::map<std::string, std::deque<Handler>> script;
  std::vector<Asked> asked;
  std::vector<HttpExchangePtr> held;
  std::vector<std::string> blobs_put;
  int closed = 0;
  std::unique_ptr<Blobs> stored;
  std::unique_ptr<EngineContext> here;
};

// ------------------------------------------------------------------------------------------------------------ OpenAI

const std::string kChat =
    R"({"id":"c","object":"chat.completion","model":"gpt","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8,"cost":0.25}})";

TEST_F(Remotes, ChatWithItsCost) {
  add("openai-cloud", "remote-openai");
  answer("POST /v1/chat/completions", {says(kChat)});
  run(job("openai", "chat", "gpt", R"({"messages":[{"role":"user","content":"say {}"}]})"), 0, R"(["it"])");
  ASSERT_TRUE(ended());
  ASSERT_TRUE(result().ok()) << result().message();
  EXPECT_EQ(value().at("text").as_string(), "Hi");
  EXPECT_EQ(value().at("cost").to_number<double>(), 0.25);
  EXPECT_EQ(value().at("cost_by").as_string(), "service");
  on_loop([&] {
    EXPECT_EQ(asked.at(0).headers.at("authorization"), std::string("Bearer ") + kKey);
    EXPECT_NE(asked.at(0).body.find("say it"), std::string::npos);
    EXPECT_NE(asked.at(0).body.find(R"("model":"gpt")"), std::string::npos);
  });
}

TEST_F(Remotes, AStreamIsShownAndCounted) {
  add("openai-cloud", "remote-openai");
  const auto chunk = [](const std::string& text) {
    return R"(data: {"id":"c","choices":[{"index":0,"delta":{"content":")" + text + "\"},\"finish_reason\":null}]}\n\n";
  };
  answer("POST /v1/chat/completions",
         {streams({": ping\n\n", chunk("one\\n"), chunk("two"),
                   "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
                   "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"cost\":0.5}}\n\n",
                   "data: [DONE]\n\n"})});
  run(job("openai", "chat", "gpt", "", true), 0, R"(["hello"])");
  ASSERT_TRUE(ended());
  ASSERT_TRUE(result().ok()) << result().message();
  EXPECT_EQ(value().at("text").as_string(), "one\ntwo");
  EXPECT_EQ(value().at("gen_tokens").to_number<int>(), 2);
  EXPECT_EQ(value().at("cost").to_number<double>(), 0.5);
  on_loop([&] {
    EXPECT_NE(asked.at(0).body.find("include_usage"), std::string::npos);
    EXPECT_FALSE(host.of("llm_token").empty());
  });
}

TEST_F(Remotes, AnErrorInAStreamIsAFailure) {
  add("openai-cloud", "remote-openai");
  answer("POST /v1/chat/completions",
         {streams({"data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\"code\":null}}\n\n"})});
  run(job("openai", "chat", "gpt", "", true), 0, R"(["hello"])");
  ASSERT_TRUE(ended());
  EXPECT_FALSE(result().ok());
  EXPECT_NE(result().message().find("overloaded"), std::string::npos) << result().message();
}

TEST_F(Remotes, AShortWaitIsWaited) {
  add("openai-cloud", "remote-openai");
  const std::string busy = R"({"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}})";
  answer("POST /v1/chat/completions", {says(busy, 429, {{"retry-after-ms", "20"}}), says(kChat)});
  run(job("openai", "chat", "gpt", ""), 0, R"(["hello"])");
  ASSERT_TRUE(ended());
  EXPECT_TRUE(result().ok()) << result().message();
  EXPECT_EQ(times("POST /v1/chat/completions"), 2u);
}

TEST_F(Remotes, ALongWaitIsTheSchedulers) {
  add("openai-cloud", "remote-openai");
  const std::string busy = R"({"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}})";
  answer("POST /v1/chat/completions", {says(busy, 429, {{"Retry-After", "3600"}})});
  run(job("openai", "chat", "gpt", ""), 0, R"(["hello"])");
  ASSERT_TRUE(ended());
  EXPECT_TRUE(result().exception() == "busy" || result().exception() == "rate_limited") << result().exception();
  EXPECT_NE(result().message().find("in 3600 s"), std::string::npos) << result().message();
  EXPECT_EQ(times("POST /v1/chat/completions"), 1u);
}

// An empty account does not fill by waiting; and a 500 of what is billed is not asked for twice.
TEST_F(Remotes, SomeRefusalsAreNotRepeated) {
  add("openai-cloud", "remote-openai");
  answer("POST /v1/chat/completions",
         {says(R"({"error":{"message":"no credit","type":"insufficient_quota","code":"insufficient_quota"}})", 429)});
  run(job("openai", "chat", "gpt", ""), 0, R"(["hello"])");
  ASSERT_TRUE(ended());
  answer("POST /v1/chat/completions", {says(R"({"error":{"message":"boom"}})", 500)});
  run(job("openai", "chat", "gpt", ""), 1, R"(["hello"])");
  ASSERT_TRUE(ended(2));
  EXPECT_EQ(times("POST /v1/chat/completions"), 2u);
}

TEST_F(Remotes, TheKeyIsInNoMessage) {
  add("openai-cloud", "remote-openai");
  answer("POST /v1/chat/completions",
         {says(std::string(R"({"error":{"message":"Incorrect API key provided: )") + kKey + "\"}}", 401)});
  run(job("openai", "chat", "gpt", ""), 0, R"(["hello"])");
  ASSERT_TRUE(ended());
  EXPECT_EQ(result().exception(), "auth");
  EXPECT_EQ(result().SerializeAsString().find(kKey), std::string::npos);
  on_loop([&] {
    for (const auto& one : host.events) EXPECT_EQ(json::serialize(one.data).find(kKey), std::string::npos);
  });
}

TEST_F(Remotes, EmbeddingsAndPictures) {
  add("openai-cloud", "remote-openai");
  answer(
      "POST /v1/embeddings",
      {says(R"({"object":"list","model":"e","data":[{"index":0,"embedding":[0.5,1]}],"usage":{"prompt_tokens":2}})")});
  run(job("openai", "embeddings", "e", ""), 0, R"(["text"])");
  ASSERT_TRUE(ended());
  ASSERT_TRUE(result().ok()) << result().message();
  EXPECT_EQ(value().at("embeddings").at(0).at(0).to_number<double>(), 0.5);
  answer("GET /file", {says("from afar")});
  answer("POST /v1/images/generations",
         {says(R"({"created":1,"data":[{"b64_json":"cGljdHVyZQ=="},{"url":")" + url +
               R"(/file"},{"url":"http://elsewhere.example/x"},{"url":"http://localhost:1/x"}]})")});
  run(job("openai", "images", "i", ""), 1, R"(["a cat"])");
  ASSERT_TRUE(ended(2));
  ASSERT_TRUE(result().ok()) << result().message();
  ASSERT_EQ(result().files_size(), 2);
  for (const std::size_t i : {2u, 3u})
    EXPECT_NE(value().at("files").at(i).at("error").as_string().find("https"), std::string::npos) << i;
  on_loop([&] {
    ASSERT_EQ(blobs_put.size(), 2u);
    EXPECT_EQ(blobs_put[0], "picture");
    EXPECT_EQ(blobs_put[1], "from afar");
  });
}

TEST_F(Remotes, StoppingClosesTheConnection) {
  add("openai-cloud", "remote-openai");
  answer("POST /v1/chat/completions", {holds()});
  run(job("openai", "chat", "gpt", ""), 0, R"(["hello"])");
  ASSERT_TRUE(eventually([&] { return held.size() == 1; }));
  on_loop([&] { engine->stop(task_of(0), 1, StopHow::soft); });
  ASSERT_TRUE(ended());
  EXPECT_EQ(result().failure(), pb::FAILURE_CANCELLED);
  EXPECT_TRUE(eventually([&] { return closed == 1; }));
}

TEST_F(Remotes, ABudgetEndsTheDay) {
  add("openai-cloud", "remote-openai");
  ::setenv("GRANGE_BUDGET_OPENAI_CLOUD", "0.3", 1);
  answer("POST /v1/chat/completions", {says(kChat)});
  for (std::uint32_t i = 0; i < 3; ++i) {
    run(job("openai", "chat", "gpt", ""), i, R"(["hello"])");
    ASSERT_TRUE(ended(i + 1));
  }
  ::unsetenv("GRANGE_BUDGET_OPENAI_CLOUD");
  EXPECT_FALSE(result().ok());
  EXPECT_NE(result().message().find("budget"), std::string::npos) << result().message();
  EXPECT_EQ(times("POST /v1/chat/completions"), 2u);
}

TEST_F(Remotes, AKeyIsNotSentInTheClear) {
  on_loop([&] {
    services.add("openai-cloud", "remote-openai", "http://192.0.2.1");
    services.all.back().key = kKey;
  });
  run(job("openai", "chat", "gpt", ""), 0, R"(["hello"])");
  ASSERT_TRUE(ended());
  EXPECT_NE(result().message().find("https"), std::string::npos) << result().message();
  run(job("replicate", "predict", "a/b", ""), 1, R"(["hello"])");
  ASSERT_TRUE(ended(2));
  EXPECT_NE(result().message().find("holds no key"), std::string::npos) << result().message();
}

// --------------------------------------------------------------------------------------------------------- Replicate

TEST_F(Remotes, APredictionIsPolled) {
  add("replicate", "replicate");
  answer("POST /v1/models/owner/name/predictions",
         {says(R"({"id":"p1","status":"starting","urls":{"get":"http://evil.example/"}})", 201)});
  answer(
      "GET /v1/predictions/p1",
      {says(R"({"id":"p1","status":"processing","logs":" 45%|####     | 9/20 [00:01]\n"})"),
       says(R"({"title":"busy"})", 503, {{"Retry-After", "0"}}),
       says(
           R"({"id":"p1","status":"succeeded","model":"owner/name","output":["Hel","lo"],"metrics":{"predict_time":2.5}})")});
  ::setenv("GRANGE_PRICE_REPLICATE", "second=0.1", 1);
  run(job("replicate", "predict", "owner/name", R"({"prompt":"{}"})"), 0, R"(["x"])");
  ASSERT_TRUE(ended());
  ::unsetenv("GRANGE_PRICE_REPLICATE");
  ASSERT_TRUE(result().ok()) << result().message();
  EXPECT_EQ(value().at("text").as_string(), "Hello");
  EXPECT_EQ(value().at("cost").to_number<double>(), 0.25);
  EXPECT_EQ(value().at("cost_by").as_string(), "price");
  on_loop([&] {
    EXPECT_EQ(host.progress_done, 9);
    EXPECT_EQ(asked.at(0).body, R"({"input":{"prompt":"x"}})");
  });
}

TEST_F(Remotes, APredictionIsStreamedAndItsFilesKept) {
  add("replicate", "replicate");
  answer("POST /v1/predictions",
         {says(R"({"id":"p2","status":"starting","urls":{"stream":")" + url + R"(/stream"}})", 201)});
  answer("GET /stream", {streams({"event: output\nid: 1\ndata: one\nda", "ta: two\n\n", "event: done\ndata: {}\n\n"})});
  answer("GET /v1/predictions/p2", {says(R"({"id":"p2","status":"succeeded","output":")" + url + R"(/out/a.png"})")});
  answer("GET /out/a.png", {says("bytes")});
  run(job("replicate", "predict", "o/n:v1", R"({"a":1})", true));
  ASSERT_TRUE(ended());
  ASSERT_TRUE(result().ok()) << result().message();
  ASSERT_EQ(result().files_size(), 1);
  EXPECT_EQ(result().files(0).path(), "a.png");
  on_loop([&] {
    ASSERT_EQ(host.of("llm_token").size(), 1u);
    EXPECT_EQ(host.of("llm_token")[0].data.at("text").as_string(), "one\ntwo");
    EXPECT_NE(asked.at(0).body.find(R"("version":"v1")"), std::string::npos);
  });
}

TEST_F(Remotes, APredictionMayFail) {
  add("replicate", "replicate");
  answer("POST /v1/models/o/n/predictions",
         {says(R"({"id":"p3","status":"failed","error":"CUDA out of memory"})", 201)});
  run(job("replicate", "predict", "o/n", R"({"a":1})"));
  ASSERT_TRUE(ended());
  EXPECT_EQ(result().failure(), pb::FAILURE_OUT_OF_MEMORY) << result().message();
  answer("POST /v1/models/o/n/predictions", {says(R"({"id":"p3","status":"aborted"})", 201)});
  run(job("replicate", "predict", "o/n", R"({"a":1})"), 1);
  ASSERT_TRUE(ended(2));
  EXPECT_NE(result().message().find("deadline"), std::string::npos) << result().message();
  run(job("replicate", "predict", "../secret", R"({"a":1})"), 2);
  ASSERT_TRUE(ended(3));
  EXPECT_FALSE(result().ok());
}

TEST_F(Remotes, APredictionIsCancelledThereToo) {
  add("replicate", "replicate");
  answer("POST /v1/models/o/n/predictions", {holds()});
  answer("POST /v1/predictions/p4/cancel", {says(R"({"id":"p4","status":"canceled"})")});
  run(job("replicate", "predict", "o/n", R"({"a":1})"));
  ASSERT_TRUE(eventually([&] { return held.size() == 1; }));
  on_loop([&] {
    engine->stop(task_of(0), 1, StopHow::soft);
    EXPECT_TRUE(host.ends.empty());  // it has no name yet
    held.front()->respond(net::HttpResponse::json(201, R"({"id":"p4","status":"starting"})"));
  });
  ASSERT_TRUE(ended());
  EXPECT_EQ(result().failure(), pb::FAILURE_CANCELLED);
  EXPECT_EQ(times("POST /v1/predictions/p4/cancel"), 1u);
}

// A worker that is killed while a prediction runs: the next one cancels it, and only with the key of that very address.
TEST_F(Remotes, WhatAKilledWorkerLeftIsCancelled) {
  add("replicate", "replicate");
  answer("POST /v1/models/o/n/predictions", {says(R"({"id":"p7","status":"starting"})", 201)});
  answer("GET /v1/predictions/p7", {says(R"({"id":"p7","status":"processing"})")});
  answer("POST /v1/predictions/p7/cancel", {says(R"({"id":"p7","status":"canceled"})")});
  const std::string file = scratch.file("remote-open");
  run(job("replicate", "predict", "o/n", R"({"a":1})"));
  ASSERT_TRUE(eventually([&] { return !net::testing::contents(file).empty(); }));
  EXPECT_EQ(net::testing::contents(file).find(kKey), std::string::npos);
  on_loop([&] { engine.reset(); });  // as a crash
  EXPECT_EQ(times("POST /v1/predictions/p7/cancel"), 0u);
  on_loop([&] {
    services.all.back().url = "http://127.0.0.1:1";  // another service by that name
    engine = make_remote_engine(*here, kQuickPolls);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(net::testing::contents(file).empty()) << "not its";
  on_loop([&] {
    engine.reset();
    services.all.back().url = url;
    engine = make_remote_engine(*here, kQuickPolls);
  });
  EXPECT_TRUE(eventually([&] { return net::testing::contents(file).empty(); }));
  EXPECT_EQ(times("POST /v1/predictions/p7/cancel"), 1u);
  on_loop([&] {
    for (const Asked& one : asked) {
      if (one.what == "POST /v1/predictions/p7/cancel") {
        EXPECT_EQ(one.headers.at("authorization"), std::string("Bearer ") + kKey);
      }
    }
  });
}

TEST_F(Remotes, WhatEndedIsNotKept) {
  add("replicate", "replicate");
  answer("POST /v1/models/o/n/predictions", {says(R"({"id":"p8","status":"succeeded","output":"x"})", 201)});
  run(job("replicate", "predict", "o/n", R"({"a":1})"));
  ASSERT_TRUE(ended());
  EXPECT_TRUE(net::testing::contents(scratch.file("remote-open")).empty());
}

// ------------------------------------------------------------------------------------------------------------ RunPod

TEST_F(Remotes, ARunIsPolled) {
  add("runpod", "runpod");
  answer("POST /v2/ep1/run", {says(R"({"id":"r1","status":"IN_QUEUE"})")});
  answer("GET /v2/ep1/status/r1",
         {says(R"({"id":"r1","status":"IN_PROGRESS"})"),
          says(R"({"id":"r1","status":"COMPLETED","delayTime":824,"executionTime":3391,"output":{"n":1}})")});
  run(job("runpod", "run", "ep1", R"({"x":"{}"})"), 0, R"(["y"])");
  ASSERT_TRUE(ended());
  ASSERT_TRUE(result().ok()) << result().message();
  EXPECT_EQ(value().at("output").at("n").to_number<int>(), 1);
  EXPECT_EQ(value().at("execution_ms").to_number<int>(), 3391);
  on_loop([&] { EXPECT_EQ(asked.at(0).body, R"({"input":{"x":"y"}})"); });
}

TEST_F(Remotes, RunsyncMayAnswerEarlyOrLate) {
  add("runpod", "runpod");
  answer("POST /v2/ep1/runsync",
         {says(R"({"id":"s1","status":"COMPLETED","output":"now"})"), says(R"({"id":"s2","status":"IN_PROGRESS"})")});
  answer("GET /v2/ep1/status/s2", {says(R"({"id":"s2","status":"COMPLETED","output":"later"})")});
  run(job("runpod", "runsync", "ep1", R"({"a":1})"));
  ASSERT_TRUE(ended());
  EXPECT_EQ(value().at("output").as_string(), "now");
  run(job("runpod", "runsync", "ep1", R"({"a":1})"), 1);
  ASSERT_TRUE(ended(2));
  EXPECT_EQ(value().at("output").as_string(), "later");
}

TEST_F(Remotes, PiecesOfBothForms) {
  add("runpod", "runpod");
  answer("POST /v2/ep1/run", {says(R"({"id":"r2","status":"IN_QUEUE"})")});
  answer("GET /v2/ep1/stream/r2", {says(R"([{"output":"a","metrics":{}}])"), says("[]"),
                                   says(R"({"status":"IN_PROGRESS","stream":[{"output":"b"}]})"),
                                   says(R"({"status":"COMPLETED","stream":[]})")});
  answer("GET /v2/ep1/status/r2", {says(R"({"id":"r2","status":"IN_PROGRESS"})"),
                                   says(R"({"id":"r2","status":"COMPLETED","executionTime":10,"output":["a","b"]})")});
  run(job("runpod", "run", "ep1", R"({"a":1})", true));
  ASSERT_TRUE(ended());
  ASSERT_TRUE(result().ok()) << result().message();
  EXPECT_EQ(value().at("output").as_array().size(), 2u);
  on_loop([&] { EXPECT_EQ(host.of("llm_token").size(), 2u); });
}

TEST_F(Remotes, AFailedRunSaysWhy) {
  add("runpod", "runpod");
  answer("POST /v2/ep1/run", {says(R"({"id":"r3","status":"FAILED","error":"handler broke"})"),
                              says(R"({"id":"r4","status":"COMPLETED","output":{"error":"bad prompt"}})"),
                              says(R"({"id":"r5","status":"TIMED_OUT"})")});
  const char* const says_why[] = {"handler broke", "bad prompt", "ran out of time"};
  for (std::uint32_t i = 0; i < 3; ++i) {
    run(job("runpod", "run", "ep1", R"({"a":1})"), i);
    ASSERT_TRUE(ended(i + 1));
    EXPECT_FALSE(result().ok());
    EXPECT_NE(result().message().find(says_why[i]), std::string::npos) << result().message();
  }
}

TEST_F(Remotes, ARunIsCancelledThereToo) {
  add("runpod", "runpod");
  answer("POST /v2/ep1/run", {says(R"({"id":"r6","status":"IN_QUEUE"})")});
  answer("GET /v2/ep1/status/r6", {says(R"({"id":"r6","status":"IN_PROGRESS"})")});
  answer("POST /v2/ep1/cancel/r6", {says(R"({"id":"r6","status":"CANCELLED"})")});
  run(job("runpod", "run", "ep1", R"({"a":1})"));
  ASSERT_TRUE(eventually([&] { return !host.of("remote_status").empty(); }));
  on_loop([&] { engine->stop(task_of(0), 1, StopHow::hard); });
  ASSERT_TRUE(ended());
  EXPECT_TRUE(eventually([&] {
    return std::any_of(asked.begin(), asked.end(), [](auto& a) { return a.what == "POST /v2/ep1/cancel/r6"; });
  }));
}

// ------------------------------------------------------------------------------------------------------------- rules

TEST(RemoteRules, WhomAKeyMayBeSentTo) {
  EXPECT_TRUE(safe_for_keys("https://api.example.com").ok());
  EXPECT_TRUE(safe_for_keys("http://127.0.0.1:80").ok());
  EXPECT_TRUE(safe_for_keys("http://[::1]:80").ok());
  for (const char* bad : {"http://api.example.com", "http://127.0.0.1.example.com", "ftp://x", "http://10.0.0.1", ""})
    EXPECT_FALSE(safe_for_keys(bad).ok()) << bad;
  EXPECT_TRUE(same_service("https://api.replicate.com", "https://streaming-api.svc.us.c.replicate.net/v1/x"));
  EXPECT_FALSE(same_service("https://api.replicate.com", "https://evilreplicate.net/"));
  EXPECT_FALSE(same_service("https://api.openai.com", "https://files.example.com/"));
  EXPECT_FALSE(same_service("https://api.openai.com", "http://api.openai.com:443/"));
}

TEST(RemoteRules, HowLongToWait) {
  const std::int64_t now = 1'445'412'480'000;  // Wed, 21 Oct 2015 07:28:00 GMT
  EXPECT_EQ(retry_after({{"retry-after", "2"}}, now), Millis{2000});
  EXPECT_EQ(retry_after({{"retry-after", "0.5"}}, now), Millis{500});
  EXPECT_EQ(retry_after({{"retry-after", "9"}, {"retry-after-ms", "30"}}, now), Millis{30});
  EXPECT_EQ(retry_after({{"retry-after", "Wed, 21 Oct 2015 07:28:10 GMT"}}, now), Millis{10'000});
  EXPECT_EQ(retry_after({{"retry-after", "Wed, 21 Oct 2015 07:27:00 GMT"}}, now), Millis{0});
  EXPECT_EQ(retry_after({{"retry-after", "-5"}}, now), Millis{0});
  for (const char* none : {"", "soon", "nan", "1e400"}) EXPECT_FALSE(retry_after({{"retry-after", none}}, now)) << none;
}

TEST(RemoteRules, NoKeyIsShown) {
  EXPECT_EQ(redacted("a secret-key b secret-key", "secret-key"), "a [key] b [key]");
  EXPECT_EQ(redacted("got r8_0123456789abcdefXYZ.", ""), "got [key].");
  EXPECT_EQ(redacted("a task-oriented-assistant", ""), "a task-oriented-assistant");
}

TEST(RemoteRules, PricesAndSpending) {
  EXPECT_EQ(read_prices("in=2.5,out=10")->per_m_out, 10);
  for (const char* bad : {"in", "in=x", "in=-1", "foo=1"}) EXPECT_FALSE(read_prices(bad).ok()) << bad;
  const net::testing::Scratch scratch;
  const std::int64_t day = 86'400'000;
  {
    Spending all(scratch.file("spent"));
    all.add("k1", 1.5, 10 * day);
    all.add("k1", 1, 10 * day + 5);
    all.add("k2", 7, 10 * day);
  }
  const Spending again(scratch.file("spent"));
  EXPECT_EQ(again.today("k1", 11 * day - 1), 2.5);
  EXPECT_EQ(again.today("k1", 11 * day), 0);
  EXPECT_EQ(net::testing::contents(scratch.file("spent")).find("k1"), std::string::npos);
}

TEST(RemoteRules, WebhooksMustBeSigned) {
  // The example of the scheme's own documents.
  const std::string secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
  const std::string body = R"({"email":"test@example.com","username":"test_user"})";
  const std::int64_t when = 1'649'367'553;
  Headers headers{{"webhook-id", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"}, {"webhook-timestamp", std::to_string(when)}};
  headers["webhook-signature"] = "v1,AAAA v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
  EXPECT_TRUE(check_replicate_webhook(headers, body, secret, when * 1000).ok())
      << check_replicate_webhook(headers, body, secret, when * 1000).error().message;
  EXPECT_FALSE(check_replicate_webhook(headers, body + " ", secret, when * 1000).ok());
  EXPECT_FALSE(check_replicate_webhook(headers, body, "whsec_AAAA", when * 1000).ok());
  EXPECT_FALSE(check_replicate_webhook(headers, body, "whsec_!", when * 1000).ok());
  EXPECT_FALSE(check_replicate_webhook(headers, body, secret, (when + 301) * 1000).ok());
  EXPECT_FALSE(check_replicate_webhook(headers, body, secret, (when - 301) * 1000).ok());
  headers["webhook-timestamp"] = "x";
  EXPECT_FALSE(check_replicate_webhook(headers, body, secret, when * 1000).ok());
}

TEST(RemoteRules, EventsHoweverTheyAreCut) {
  const std::string all = ": hi\r\nevent: output\r\ndata: a\r\ndata:b\r\n\r\ndata\n\nevent: done\rdata: {}\r\r";
  for (std::size_t cut = 1; cut < all.size(); ++cut) {
    SseReader reader;
    std::string got;
    const auto out = [&](const std::string& event, const std::string& data) { got += event + "=" + data + ";"; };
    for (std::size_t at = 0; at < all.size(); at += cut)
      ASSERT_TRUE(reader.feed(std::string_view(all).substr(at, cut), out));
    EXPECT_EQ(got, "output=a\nb;=;done={};") << cut;
  }
  SseReader reader;
  EXPECT_FALSE(reader.feed(std::string(5 * MiB, 'x'), [](const auto&, const auto&) {}));
}

TEST(RemoteRules, Base64BothWays) {
  for (const char* text : {"", "a", "ab", "abc", "abcd"}) EXPECT_EQ(from_base64(to_base64(text)), text);
  EXPECT_EQ(from_base64("abc"), std::nullopt);
  EXPECT_EQ(from_base64("!!!!"), std::nullopt);
}

TEST(Secrets, OnlyFromAFileThatOthersCannotRead) {
  const net::testing::Scratch scratch;
  const std::string path = scratch.file("secrets");
  std::ofstream(path) << "# keys\nOPENAI_API_KEY = sk-1 \nexport B=\"two words\"\nnonsense\n\nEMPTY=\n";
  ::chmod(path.c_str(), 0644);
  EXPECT_EQ(read_secrets(path).error().cls, ErrorClass::forbidden);
  ::chmod(path.c_str(), 0600);
  const auto all = read_secrets(path);
  ASSERT_TRUE(all.ok()) << all.error().message;
  EXPECT_EQ(all->at("OPENAI_API_KEY"), "sk-1");
  EXPECT_EQ(all->at("B"), "two words");
  ::setenv("GRANGE_SECRETS", path.c_str(), 1);
  EXPECT_EQ(secret_from_file("OPENAI_API_KEY"), "sk-1");
  EXPECT_EQ(secret_from_file("EMPTY"), std::nullopt);
  ::unsetenv("GRANGE_SECRETS");
  EXPECT_EQ(secret_from_file("OPENAI_API_KEY"), std::nullopt);
  EXPECT_FALSE(read_secrets(scratch.file("none")).ok());
}

}  // namespace
}  // namespace grange::worker
