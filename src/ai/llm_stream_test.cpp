#include "ai/llm_stream.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <boost/json/serialize.hpp>

namespace grange::ai {
namespace {

struct Heard {
  std::vector<LlmEvent> events;
  LlmResult result;
  bool begun = false;

  std::string line() const {  // for comparisons
    std::string out;
    for (const LlmEvent& e : events) {
      out += std::to_string(static_cast<int>(e.type)) + ":" + e.text + boost::json::serialize(e.call) + "|";
    }
    return out;
  }
};

// Cut after each of `cuts` bytes in turn; each piece arrives a millisecond after the last one.
Heard hear(Dialect dialect, LlmOp op, bool streamed, std::string_view bytes, std::vector<std::size_t> cuts = {},
           int status = 200) {
  Heard out;
  LlmStream stream(dialect, op, streamed, Micros{1000});
  stream.status(status);
  Micros at{1000};
  std::size_t turn = 0;
  while (!bytes.empty()) {
    const std::size_t size = cuts.empty() ? bytes.size() : std::min(cuts[turn++ % cuts.size()], bytes.size());
    at += Micros{1000};
    stream.feed(bytes.substr(0, size), at, out.events);
    bytes.remove_prefix(size);
  }
  stream.end(at + Micros{1000}, out.events);
  out.result = stream.result();
  out.begun = stream.begun();
  EXPECT_TRUE(stream.ended());
  return out;
}

// Each string arrives by itself, 10 ms after the one before; the request was sent at 0.
Heard paced(Dialect dialect, LlmOp op, const std::vector<std::string>& pieces) {
  Heard out;
  LlmStream stream(dialect, op, true, Micros{0});
  Micros at{0};
  for (const std::string& piece : pieces) stream.feed(piece, at += Micros{10'000}, out.events);
  stream.end(at + Micros{10'000}, out.events);
  out.result = stream.result();
  return out;
}

const std::string kOllama =
    R"({"model":"llama3.2","created_at":"x","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}
{"model":"llama3.2","created_at":"x","message":{"role":"assistant","content":"Hel"},"done":false}
{"model":"llama3.2","created_at":"x","message":{"role":"assistant","content":"lo"},"done":false}
{"model":"llama3.2","created_at":"x","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"get_weather","arguments":{"city":"Tokyo"}}}]},"done":false}
{"model":"llama3.2","created_at":"x","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":10706818083,"load_duration":6338219291,"prompt_eval_count":26,"prompt_eval_duration":130079000,"eval_count":259,"eval_duration":4232710000}
)";

const std::string kOpenAi =
    ": ping\r\n\r\n"
    R"(data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}],"usage":null})"
    "\n\n"
    R"(data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}]})"
    "\n\n"
    R"(data: {"choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}]})"
    "\n\n: ping\n\n"
    R"(data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":null}]})"
    "\n\n"
    R"(data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"get_weather","arguments":"{\"ci"}}]}}]})"
    "\n\n"
    R"(data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"now","arguments":""}},{"index":0,"function":{"arguments":"ty\":1}"}}]}}]})"
    "\n\n"
    R"(data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]})"
    "\n\n"
    R"(data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4}},"timings":{"cache_n":4,"prompt_n":8,"prompt_per_second":80.5,"predicted_n":5,"predicted_per_second":52.94}})"
    "\n\ndata: [DONE]\n\n";

TEST(LlmStream, Ollama) {
  const Heard got = hear(Dialect::ollama, LlmOp::chat, true, kOllama);
  ASSERT_EQ(got.events.size(), 5u);
  EXPECT_EQ(got.events[0].type, LlmEvent::Type::thinking);
  EXPECT_EQ(got.events[3].type, LlmEvent::Type::tool_call);
  EXPECT_EQ(got.events[4].type, LlmEvent::Type::done);
  EXPECT_EQ(got.result.text, "Hello");
  EXPECT_EQ(got.result.thinking, "hm");
  EXPECT_EQ(got.result.finish_reason, "stop");
  EXPECT_EQ(
      boost::json::serialize(got.result.tool_calls),
      R"([{"id":"call_0","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Tokyo\"}"}}])");
  const Metrics& m = got.result.metrics;
  EXPECT_EQ(m.prompt_tokens, 26u);
  EXPECT_EQ(m.gen_tokens, 259u);
  EXPECT_NEAR(*m.load_ms, 6338.219, 0.001);
  EXPECT_NEAR(*m.prompt_tokens_per_s, 26 / 0.130079, 0.01);
  EXPECT_NEAR(*m.gen_tokens_per_s, 259 / 4.23271, 0.01);
  EXPECT_EQ(m.gen_rate_by, "engine");
}

TEST(LlmStream, WhereOnlyFiguresAreKeptTheEventsAreTheSame) {
  for (const auto& [dialect, bytes] : {std::pair{Dialect::ollama, &kOllama}, std::pair{Dialect::openai, &kOpenAi}}) {
    const Heard all = hear(dialect, LlmOp::chat, true, *bytes, {7});
    Heard figures;
    LlmStream stream(dialect, LlmOp::chat, true, Micros{1000}, LlmStream::Keep::figures);
    Micros at{1000};
    for (std::size_t from = 0; from < bytes->size(); from += 7)
      stream.feed(std::string_view(*bytes).substr(from, 7), at += Micros{1000}, figures.events);
    EXPECT_EQ(figures.line(), all.line());
    const LlmResult& result = stream.result();
    EXPECT_EQ(result.finish_reason, all.result.finish_reason);
    EXPECT_EQ(result.metrics.gen_tokens, all.result.metrics.gen_tokens);
    EXPECT_EQ(result.metrics.gen_tokens_per_s, all.result.metrics.gen_tokens_per_s);
    EXPECT_EQ(result.text + result.thinking, "");
    EXPECT_TRUE(result.tool_calls.empty());
    EXPECT_TRUE(result.metrics.itl_ms.empty());
  }
}

TEST(LlmStream, WhatIsHeldIsWhatWaitsForMore) {
  LlmStream stream(Dialect::openai, LlmOp::chat, true, Micros{0}, LlmStream::Keep::figures);
  std::vector<LlmEvent> events;
  const auto say = [&](const std::string& text) { stream.feed(text, Micros{1}, events); };
  const std::string large(1 * MiB, 'x');
  for (int i = 0; i < 3; ++i) say(R"(data: {"choices":[{"index":0,"delta":{"content":")" + large + "\"}}]}\n\n");
  EXPECT_EQ(events.size(), 3u);
  EXPECT_LT(stream.held(), 1024u) << "it was given out";
  const std::string call = R"(data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":")";
  say(call + large + R"(","function":{"name":")" + large + R"(","arguments":")" + large + "\"}}]}}]}\n\n");
  EXPECT_GE(stream.held(), 3 * MiB) << "until it is whole";
  say("data: " + large);
  EXPECT_GE(stream.held(), 4 * MiB) << "and a line without its end";
}

TEST(LlmStream, NamesOfCallsCountToo) {
  LlmStream stream(Dialect::openai, LlmOp::chat, true, Micros{0});
  std::vector<LlmEvent> events;
  const std::string large(3 * MiB, 'x');
  for (int i = 0; i < 30 && !stream.ended(); ++i) {
    stream.feed(R"(data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":)" + std::to_string(i) +
                    R"(,"function":{"name":")" + large + "\"}}]}}]}\n\n",
                Micros{1}, events);
  }
  ASSERT_TRUE(stream.failed());
  EXPECT_NE(events.back().text.find("64 MiB"), std::string::npos) << events.back().text;
}

TEST(LlmStream, OllamaLeavesOutWhatIsZero) {
  const Heard got = hear(Dialect::ollama, LlmOp::generate, true,
                         R"({"model":"m","response":"a","done":false}
{"model":"m","response":"","done":true,"done_reason":"length","eval_count":1}
)");
  EXPECT_EQ(got.result.text, "a");
  EXPECT_EQ(got.result.finish_reason, "length");
  const auto json = result_json(got.result, "ollama", "ollama", "m");
  for (const char* key : {"prompt_tokens", "prompt_tokens_per_s", "gen_tokens_per_s", "gen_rate_by", "load_ms"}) {
    EXPECT_TRUE(json.at(key).is_null()) << key;
  }
  EXPECT_EQ(json.at("gen_tokens").as_uint64(), 1u);
}

TEST(LlmStream, OpenAi) {
  const Heard got = hear(Dialect::llamacpp, LlmOp::chat, true, kOpenAi);
  ASSERT_EQ(got.events.size(), 6u) << got.line();
  EXPECT_EQ(got.result.text, "Hello");
  EXPECT_EQ(got.result.thinking, "hm");
  EXPECT_EQ(got.result.finish_reason, "tool_calls");
  EXPECT_EQ(boost::json::serialize(got.result.tool_calls),
            R"([{"id":"a","type":"function","function":{"name":"get_weather","arguments":"{\"city\":1}"}},)"
            R"({"id":"b","type":"function","function":{"name":"now","arguments":""}}])");
  const Metrics& m = got.result.metrics;
  EXPECT_EQ(m.prompt_tokens, 12u);
  EXPECT_EQ(m.cached_tokens, 4u);
  EXPECT_EQ(m.gen_tokens, 5u);
  EXPECT_DOUBLE_EQ(*m.gen_tokens_per_s, 52.94);
  EXPECT_DOUBLE_EQ(*m.prompt_tokens_per_s, 80.5);
}

TEST(LlmStream, TimesAreTheCallers) {
  const auto piece = [](const std::string& text) {
    return R"(data: {"choices":[{"index":0,"text":")" + text + "\"}]}\n\n";
  };
  const Heard got = paced(Dialect::openai, LlmOp::generate,
                          {": ping\n\n", piece("a"), piece("b"), piece("c"),
                           "data: {\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\n",
                           "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":3}}\n\n"});
  const Metrics& m = got.result.metrics;
  EXPECT_EQ(got.events.back().type, LlmEvent::Type::done) << "without [DONE]";
  EXPECT_DOUBLE_EQ(*m.ttft_ms, 20);
  EXPECT_DOUBLE_EQ(*m.total_ms, 70);
  EXPECT_EQ(m.itl_ms, (std::vector<double>{10, 10}));
  EXPECT_DOUBLE_EQ(*m.gen_tokens_per_s, 100);  // (3-1) / 20 ms
  EXPECT_EQ(m.gen_rate_by, "client");
  EXPECT_NEAR(*m.e2e_tokens_per_s, 3 / 0.07, 1e-9);
  const auto json = result_json(got.result, "openai", "vllm", "m");
  EXPECT_DOUBLE_EQ(json.at("itl_ms").at("p50").as_double(), 10);
  EXPECT_TRUE(json.at("load_ms").is_null());
  EXPECT_FALSE(json.contains("mock_reason"));
}

TEST(LlmStream, WithoutCountsThereAreNoRates) {
  const Heard got =
      paced(Dialect::openai, LlmOp::generate,
            {"data: {\"choices\":[{\"text\":\"a\"}]}\n\n",
             "data: {\"choices\":[{\"text\":\"b\",\"finish_reason\":\"stop\"}]}\n\n", "data: [DONE]\n\n"});
  EXPECT_FALSE(got.result.metrics.gen_tokens.has_value());
  EXPECT_FALSE(got.result.metrics.gen_tokens_per_s.has_value());
  EXPECT_FALSE(got.result.metrics.e2e_tokens_per_s.has_value());
}

TEST(LlmStream, TimingsOfEachTokenCountUp) {
  const Heard got =
      hear(Dialect::llamacpp, LlmOp::chat, true,
           "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"timings\":{\"predicted_n\":1}}\n\n"
           "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}],\"timings\":"
           "{\"predicted_n\":2,\"prompt_n\":1,\"cache_n\":6,\"predicted_per_second\":9}}\n\ndata: [DONE]\n\n");
  EXPECT_EQ(got.result.metrics.gen_tokens, 2u);
  EXPECT_EQ(got.result.metrics.prompt_tokens, 7u);
}

TEST(LlmStream, ErrorsInsideAStream) {
  const std::string begun = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
  for (const std::string error :
       {"data: {\"error\":{\"code\":500,\"message\":\"CUDA error: out of memory\",\"type\":\"server_error\"}}\n\n",
        "error: {\"code\":500,\"message\":\"CUDA error: out of memory\",\"type\":\"server_error\"}\n\n"}) {
    const Heard got = hear(Dialect::llamacpp, LlmOp::chat, true, begun + error + begun);
    ASSERT_EQ(got.events.size(), 2u) << got.line();
    EXPECT_EQ(got.events[1].type, LlmEvent::Type::error);
    EXPECT_EQ(got.events[1].error.name, "oom");
    EXPECT_EQ(got.result.text, "a");
    EXPECT_TRUE(got.begun);
  }
  const Heard ollama = hear(Dialect::ollama, LlmOp::chat, true, "{\"error\":\"model 'x' not found\"}\n");
  EXPECT_EQ(ollama.events.at(0).error.name, "missing_model");
  EXPECT_FALSE(ollama.begun);
}

TEST(LlmStream, ErrorsBeforeAndAroundIt) {
  const Heard refused =
      hear(Dialect::ollama, LlmOp::chat, true, R"({"error":"server busy, please try again."})", {}, 503);
  ASSERT_EQ(refused.events.size(), 1u);
  EXPECT_EQ(refused.events[0].error.name, "busy");
  const Heard page = hear(Dialect::openai, LlmOp::chat, true, "<html>Bad Gateway</html>", {}, 502);
  EXPECT_EQ(page.events.at(0).type, LlmEvent::Type::error);
  for (const Dialect dialect : {Dialect::ollama, Dialect::openai}) {
    const Heard nothing = hear(dialect, LlmOp::chat, true, "");
    ASSERT_EQ(nothing.events.size(), 1u);
    EXPECT_NE(nothing.events[0].text.find("before it was complete"), std::string::npos);
    EXPECT_EQ(hear(dialect, LlmOp::chat, true, "data: nonsense\n\n").events.at(0).type, LlmEvent::Type::error);
  }
  const std::string cut = kOllama.substr(0, kOllama.rfind("\"done\":true"));
  EXPECT_EQ(hear(Dialect::ollama, LlmOp::chat, true, cut).events.back().type, LlmEvent::Type::error);
}

TEST(LlmStream, ALineWithoutEndIsRefused) {
  std::vector<LlmEvent> events;
  for (const Dialect dialect : {Dialect::ollama, Dialect::openai}) {
    events.clear();
    LlmStream stream(dialect, LlmOp::chat, true, Micros{0});
    const std::string piece(1 << 20, 'x');
    for (int i = 0; i < 6; ++i) stream.feed(piece, Micros{1}, events);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].type, LlmEvent::Type::error);
    EXPECT_NE(events[0].text.find("4 MiB"), std::string::npos);
    EXPECT_TRUE(stream.failed());
  }
}

TEST(LlmStream, WholeBodies) {
  const Heard chat =
      hear(Dialect::openai, LlmOp::chat, false,
           R"({"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi","tool_calls":
[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}],
"usage":{"prompt_tokens":5,"completion_tokens":2}})");
  EXPECT_EQ(chat.events.back().type, LlmEvent::Type::done);
  EXPECT_EQ(chat.result.text, "Hi");
  EXPECT_EQ(chat.result.tool_calls.size(), 1u);
  EXPECT_EQ(chat.result.metrics.gen_tokens, 2u);
  EXPECT_FALSE(chat.result.metrics.ttft_ms.has_value());
  EXPECT_FALSE(chat.result.metrics.gen_tokens_per_s.has_value());
  EXPECT_TRUE(chat.result.metrics.total_ms.has_value());

  const Heard ollama = hear(Dialect::ollama, LlmOp::generate, false,
                            R"({"model":"m","response":"Hi","done":true,"done_reason":"stop","eval_count":2})");
  EXPECT_EQ(ollama.result.text, "Hi");
  EXPECT_EQ(ollama.events.back().type, LlmEvent::Type::done);

  const Heard unasked = hear(Dialect::openai, LlmOp::generate, true,
                             R"(  {"choices":[{"index":0,"text":"Hi","finish_reason":"length"}]})");
  EXPECT_EQ(unasked.result.text, "Hi") << "a server that does not stream";
  EXPECT_FALSE(unasked.result.metrics.ttft_ms.has_value());
  EXPECT_EQ(hear(Dialect::openai, LlmOp::chat, false, R"({"error":{"message":"no","code":"model_not_found"}})")
                .events.at(0)
                .error.name,
            "missing_model");
}

TEST(LlmStream, Embeddings) {
  const std::vector<std::vector<double>> want = {{1, -2.5}, {0.5, 0}};
  EXPECT_EQ(hear(Dialect::ollama, LlmOp::embed, true,
                 R"({"model":"m","embeddings":[[1,-2.5],[0.5,0]],"prompt_eval_count":4})")
                .result.embeddings,
            want);
  EXPECT_EQ(
      hear(Dialect::openai, LlmOp::embed, true,
           R"({"data":[{"index":1,"embedding":[0.5,0]},{"index":0,"embedding":[1,-2.5]}],"usage":{"prompt_tokens":4}})")
          .result.embeddings,
      want);
  const Heard base64 =
      hear(Dialect::openai, LlmOp::embed, true,
           R"({"data":[{"index":0,"embedding":"AACAPwAAIMA="}],"usage":{"prompt_tokens":4,"total_tokens":4}})");
  EXPECT_EQ(base64.result.embeddings, (std::vector<std::vector<double>>{{1, -2.5}}));
  EXPECT_EQ(base64.result.metrics.prompt_tokens, 4u);
  EXPECT_EQ(boost::json::serialize(result_json(base64.result, "openai", "s", "m").at("embeddings")), "[[1E0,-2.5E0]]");
  for (const char* bad : {R"({"data":[{"embedding":"AACA"}]})", R"({"data":[{"embedding":"!!!!"}]})",
                          R"({"data":[{}]})", R"({"embeddings":[["a"]]})", "{}", "[]", "x"}) {
    const Heard got = hear(Dialect::openai, LlmOp::embed, true, bad);
    EXPECT_EQ(got.events.at(0).type, LlmEvent::Type::error) << bad;
    EXPECT_TRUE(got.result.embeddings.empty());
  }
}

TEST(LlmStream, NativeCompletionOfLlamaCpp) {
  const Heard got =
      hear(Dialect::llamacpp, LlmOp::generate, true,
           "data: {\"content\":\"Hi\",\"stop\":false}\n\ndata: {\"content\":\"\",\"stop\":true,\"stop_type\":"
           "\"limit\",\"tokens_predicted\":1,\"tokens_evaluated\":8,\"timings\":{\"predicted_per_second\":7}}\n\n");
  EXPECT_EQ(got.events.back().type, LlmEvent::Type::done);
  EXPECT_EQ(got.result.finish_reason, "length");
  EXPECT_EQ(got.result.metrics.prompt_tokens, 8u);
  EXPECT_DOUBLE_EQ(*got.result.metrics.gen_tokens_per_s, 7);
}

// ------------------------------------------------------------------------------------------------------- properties

std::vector<std::size_t> some_cuts() {
  return *rc::gen::nonEmpty(rc::gen::container<std::vector<std::size_t>>(rc::gen::inRange<std::size_t>(1, 200)));
}

RC_GTEST_PROP(LlmStream, TheSameHoweverItIsCut, ()) {
  const auto cuts = some_cuts();
  RC_ASSERT(hear(Dialect::ollama, LlmOp::chat, true, kOllama, cuts).line() ==
            hear(Dialect::ollama, LlmOp::chat, true, kOllama).line());
  RC_ASSERT(hear(Dialect::llamacpp, LlmOp::chat, true, kOpenAi, cuts).line() ==
            hear(Dialect::llamacpp, LlmOp::chat, true, kOpenAi).line());
}

// Streams that are damaged somewhere: one end, the same one however they are cut.
RC_GTEST_PROP(LlmStream, DamagedStreamsEndOnce, ()) {
  const bool ollama = *rc::gen::arbitrary<bool>();
  std::string bytes = ollama ? kOllama : kOpenAi;
  const int hits = *rc::gen::inRange(0, 4);
  for (int i = 0; i < hits; ++i) {
    const auto at = *rc::gen::inRange<std::size_t>(0, bytes.size());
    const auto with =
        *rc::gen::element<std::string>("", "\n", "\"", "{", "}", "\r", "data:", "[", std::string(1, '\0'), "9", "\xff");
    bytes.replace(at, *rc::gen::inRange<std::size_t>(0, 20), with);
  }
  const Dialect dialect = ollama ? Dialect::ollama : Dialect::llamacpp;
  const auto op = *rc::gen::element(LlmOp::chat, LlmOp::generate, LlmOp::embed);
  const bool streamed = *rc::gen::arbitrary<bool>();
  const Heard whole = hear(dialect, op, streamed, bytes);
  RC_ASSERT(hear(dialect, op, streamed, bytes, some_cuts()).line() == whole.line());
  std::size_t ends = 0;
  for (const LlmEvent& e : whole.events) {
    ends += e.type == LlmEvent::Type::done || e.type == LlmEvent::Type::error ? 1u : 0u;
  }
  RC_ASSERT(ends == 1u);
  RC_ASSERT(whole.events.back().type == LlmEvent::Type::done || whole.events.back().type == LlmEvent::Type::error);
}

RC_GTEST_PROP(LlmStream, AnyBytes, (const std::string& bytes)) {
  for (const Dialect dialect : {Dialect::ollama, Dialect::openai, Dialect::llamacpp}) {
    for (const bool streamed : {true, false}) {
      RC_ASSERT(hear(dialect, LlmOp::chat, streamed, bytes, {1}).line() ==
                hear(dialect, LlmOp::chat, streamed, bytes).line());
    }
  }
}

// A rate of the one token that is read again is no rate of the prompt.
TEST(LlmStream, APromptOutOfTheCacheHasNoRate) {
  const auto rate = [](int cached) {
    const std::string text =
        R"(data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":1},"timings":{"cache_n":)" +
        std::to_string(cached) + R"(,"prompt_n":)" + std::to_string(12 - cached) +
        ",\"prompt_per_second\":80}}\n\ndata: [DONE]\n\n";
    return hear(Dialect::llamacpp, LlmOp::chat, true, text).result.metrics;
  };
  EXPECT_EQ(rate(0).prompt_tokens_per_s, 80);
  EXPECT_EQ(rate(4).prompt_tokens_per_s, 80);
  EXPECT_FALSE(rate(11).prompt_tokens_per_s);
  EXPECT_EQ(rate(11).cached_tokens, 11u);
  EXPECT_EQ(rate(11).prompt_tokens, 12u);
}

}  // namespace
}  // namespace grange::ai
