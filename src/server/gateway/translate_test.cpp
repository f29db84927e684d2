// Ollama's dialect told in OpenAI's words and back: as functions, and through a whole server.
#include "server/gateway/translate.hpp"

#include "base/prng.hpp"
#include "server/gateway/gateway_testing.hpp"

namespace grange::server::gateway {
namespace {

using namespace testing;

boost::json::value parsed(std::string_view text) {
  auto value = wire::parse_json(text);
  if (value) return *value;
  ADD_FAILURE() << text;
  return {};
}

OllamaCall read(std::string_view path, std::string_view body) {
  auto call = read_ollama(*passed(path), body);
  if (call) return std::move(*call);
  ADD_FAILURE() << call.error().message;
  return {};
}

TEST(Translate, AChatBecomesOpenAIs) {
  const OllamaCall call = read("/ollama/api/chat", R"({"model":"x:latest","stream":false,"keep_alive":"5m",
      "options":{"num_predict":7,"num_ctx":4096,"temperature":0.5,"mirostat":1,"num_gpu":3,"stop":["a"]},
      "format":"json","tools":[{"type":"function","function":{"name":"f"}}],
      "messages":[{"role":"user","content":"see","images":["AAAA"]},
                  {"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}},
                                                                 {"function":{"name":"g","arguments":{}}}]},
                  {"role":"tool","tool_name":"g","content":"of g"},{"role":"tool","content":"of f"}]})");
  const auto http = asked_of(call, "openai", "x");
  EXPECT_EQ(http.path, "/v1/chat/completions");
  EXPECT_FALSE(http.stream);
  const auto body = parsed(http.body);
  EXPECT_EQ(body.at("model").as_string(), "x");
  EXPECT_EQ(body.at("max_tokens").to_number<int>(), 7);
  EXPECT_EQ(body.at("temperature").to_number<double>(), 0.5);
  EXPECT_EQ(body.at("response_format").at("type").as_string(), "json_object");
  for (const char* gone : {"num_ctx", "num_predict", "mirostat", "num_gpu", "keep_alive", "options", "format"})
    EXPECT_FALSE(body.as_object().contains(gone)) << gone;
  EXPECT_TRUE(parsed(asked_of(call, "llamacpp", "x").body).as_object().contains("mirostat"));
  const auto& messages = body.at("messages").as_array();
  EXPECT_EQ(messages.at(0).at("content").at(1).at("type").as_string(), "image_url");
  EXPECT_EQ(messages.at(1).at("tool_calls").at(0).at("function").at("arguments").as_string(), R"({"a":1})");
  EXPECT_EQ(messages.at(2).at("tool_call_id"), messages.at(1).at("tool_calls").at(1).at("id")) << "by its name";
  EXPECT_EQ(messages.at(3).at("tool_call_id"), messages.at(1).at("tool_calls").at(0).at("id"));
  EXPECT_FALSE(messages.at(2).as_object().contains("tool_name"));
}

TEST(Translate, APromptIsAChatUnlessItIsRaw) {
  const auto plain =
      asked_of(read("/ollama/api/generate", R"({"model":"x","prompt":"p {} q","system":"s {}"})"), "llamacpp", "x");
  EXPECT_EQ(plain.path, "/v1/chat/completions");
  EXPECT_TRUE(plain.stream) << "it streams unless told not to";
  EXPECT_EQ(parsed(plain.body).at("messages").at(0).at("content").as_string(), "s {}");
  EXPECT_EQ(parsed(plain.body).at("messages").at(1).at("content").as_string(), "p {} q");
  const auto raw = asked_of(read("/ollama/api/generate", R"({"model":"x","prompt":"p","raw":true})"), "llamacpp", "x");
  EXPECT_EQ(raw.path, "/v1/completions");
  EXPECT_EQ(parsed(raw.body).at("prompt").as_string(), "p");
  EXPECT_TRUE(read("/ollama/api/generate", R"({"model":"x"})").loads);
  EXPECT_TRUE(read("/ollama/api/chat", R"({"model":"x","messages":[]})").loads);
  const auto embed =
      asked_of(read("/ollama/api/embed", R"({"model":"x","input":["a","b"],"truncate":true})"), "openai", "x");
  EXPECT_EQ(embed.path, "/v1/embeddings");
  EXPECT_EQ(parsed(embed.body).at("input").as_array().size(), 2u);
  EXPECT_FALSE(parsed(embed.body).as_object().contains("truncate"));
}

TEST(Translate, OptionsReplaceNothingOfTheRequest) {
  for (const char* path : {"/ollama/api/chat", "/ollama/api/generate"}) {
    for (const char* in : {R"({)", R"({"extra":{)", R"({"options":{)"}) {
      const std::string nested = std::string(in).size() > 1 ? "}" : "";
      const std::string body = std::string(R"({"model":"small","stream":false,"prompt":"p","format":"json",
          "messages":[{"role":"user","content":"hi"}],"options":)") +
                               in +
                               R"("model":"dear","stream":true,"stream_options":{"x":1},"messages":[],"prompt":"other",
          "input":"other","tools":[{"type":"function","function":{"name":"f"}}],"format":"no")" +
                               nested + "}}";
      const auto http = asked_of(read(path, body), "openai", "small");
      EXPECT_FALSE(http.stream);
      const auto asked = parsed(http.body);
      EXPECT_EQ(asked.at("model").as_string(), "small") << http.body;
      EXPECT_EQ(asked.at("messages").as_array().size(), 1u);
      EXPECT_EQ(asked.at("response_format").at("type").as_string(), "json_object");
      EXPECT_EQ(asked.as_object().size(), 3u) << http.body;
    }
  }
}

TEST(Translate, AStreamKeepsNothingOfWhatItTold) {
  OllamaAnswer answer(read("/ollama/api/chat", R"({"model":"x","messages":[{"role":"user","content":"q"}]})"),
                      "llamacpp", "x", true, Micros{0});
  const std::string event =
      R"(data: {"choices":[{"index":0,"delta":{"content":")" + std::string(1 * MiB, 'x') + "\"}}]}\n\n";
  for (int i = 0; i < 3; ++i) EXPECT_GT(answer.feed(event, Micros{1}, WallMs{0}).bytes.size(), 1 * MiB);
  EXPECT_LT(answer.held(), 1024u);
}

TEST(Translate, WrongFormsAreSaid) {
  for (const auto& [path, body] : std::vector<std::pair<const char*, const char*>>{
           {"/ollama/api/chat", R"({"model":"x","messages":"hi"})"},
           {"/ollama/api/chat", R"({"model":"x","messages":[{"content":"hi"}]})"},
           {"/ollama/api/chat", R"({"model":"x","stream":"yes","messages":[]})"},
           {"/ollama/api/embed", R"({"model":"x","input":[1]})"},
           {"/ollama/api/embed", "[]"}})
    EXPECT_FALSE(read_ollama(*passed(path), body).ok()) << body;
}

const std::string kStream =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n"
    ": ping\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"He\"}}]}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"llo\"}}]}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":"
    "{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}}]}}]}\n\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}],"
    "\"usage\":{\"prompt_tokens\":30,\"completion_tokens\":20},"
    "\"timings\":{\"cache_n\":10,\"prompt_n\":20,\"prompt_per_second\":100.0,\"predicted_n\":20,"
    "\"predicted_per_second\":40.0}}\n\n"
    "data: [DONE]\n\n";

std::vector<boost::json::value> lines_of(const std::string& text) {
  std::vector<boost::json::value> out;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = text.find('\n', at);
    EXPECT_NE(end, std::string::npos) << "a line without its end";
    if (end == std::string::npos) break;
    out.push_back(parsed(std::string_view(text).substr(at, end - at)));
    at = end + 1;
  }
  return out;
}

TEST(Translate, AStreamHoweverItIsCut) {
  for (const std::size_t step : {std::size_t{1}, std::size_t{7}, kStream.size()}) {
    OllamaAnswer answer(read("/ollama/api/chat", R"({"model":"x","messages":[{"role":"user","content":"q"}]})"),
                        "llamacpp", "x", true, Micros{0});
    std::string got;
    for (std::size_t at = 0; at < kStream.size(); at += step) {
      const auto piece = answer.feed(std::string_view(kStream).substr(at, step), Micros{1000}, WallMs{0});
      EXPECT_EQ(piece.failure, "");
      got += piece.bytes;
    }
    EXPECT_TRUE(answer.over());
    const auto lines = lines_of(got);
    ASSERT_EQ(lines.size(), 5u) << got;
    EXPECT_EQ(lines[0].at("message").at("thinking").as_string(), "hm");
    EXPECT_EQ(lines[1].at("message").at("content").as_string(), "He");
    EXPECT_EQ(lines[1].at("created_at").as_string(), "1970-01-01T00:00:00.000Z");
    EXPECT_FALSE(lines[1].at("done").as_bool());
    EXPECT_EQ(lines[3].at("message").at("tool_calls").at(0).at("function").at("arguments").at("a").to_number<int>(), 1);
    const auto& last = lines[4];
    EXPECT_TRUE(last.at("done").as_bool());
    EXPECT_EQ(last.at("done_reason").as_string(), "length");
    EXPECT_EQ(last.at("prompt_eval_count").to_number<int>(), 30);
    EXPECT_EQ(last.at("eval_count").to_number<int>(), 20);
    EXPECT_EQ(last.at("prompt_eval_duration").to_number<std::int64_t>(), 200'000'000) << "of what was not cached";
    EXPECT_EQ(last.at("eval_duration").to_number<std::int64_t>(), 500'000'000);
  }
}

TEST(Translate, AWholeAnswerAndOneWithoutFigures) {
  OllamaAnswer answer(read("/ollama/api/generate", R"({"model":"x","prompt":"q","stream":false})"), "openai", "x",
                      false, Micros{0});
  EXPECT_EQ(
      answer
          .feed(R"({"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]})", Micros{1}, WallMs{0})
          .bytes,
      "");
  const auto end = answer.end(Micros{2000}, WallMs{0});
  const auto said = parsed(end.bytes);
  EXPECT_EQ(said.at("response").as_string(), "Hi");
  EXPECT_EQ(said.at("total_duration").to_number<int>(), 2'000'000);
  for (const char* unknown : {"eval_count", "prompt_eval_count", "eval_duration", "prompt_eval_duration"})
    EXPECT_FALSE(said.as_object().contains(unknown)) << unknown;
}

TEST(Translate, AnErrorKeepsItsWords) {
  OllamaAnswer answer(read("/ollama/api/chat", R"({"model":"x","messages":[{"role":"user","content":"q"}]})"),
                      "llamacpp", "x", true, Micros{0});
  const auto piece =
      answer.feed("data: {\"error\":{\"code\":500,\"message\":\"the \\\"words\\\"\"}}\n\n", Micros{1}, WallMs{0});
  EXPECT_EQ(piece.failure, "the \"words\"");
}

TEST(Translate, AnyBytesAreSurvived) {
  Prng random(7);
  const std::string question =
      R"({"model":"x","messages":[{"role":"user","content":"q","tool_calls":[{"function":{"name":1}}]}],"options":{}})";
  for (int round = 0; round < 3000; ++round) {
    std::string asked = question, answered = kStream;
    for (std::string* text : {&asked, &answered}) {
      for (std::uint64_t n = random.below(6); n > 0; --n) {
        const auto at = static_cast<std::size_t>(random.below(text->size()));
        if (random.below(2) == 0) {
          (*text)[at] = static_cast<char>(random.below(256));
        } else {
          text->erase(at, static_cast<std::size_t>(random.below(9)));
        }
      }
    }
    for (const char* path : {"/ollama/api/chat", "/ollama/api/generate", "/ollama/api/embed"}) {
      auto call = read_ollama(*passed(path), asked);
      if (!call) continue;
      for (const bool streamed : {true, false}) {
        asked_of(*call, "llamacpp", "x");
        OllamaAnswer answer(*call, "llamacpp", "x", streamed, Micros{0});
        const auto half = answered.size() / 2;
        answer.feed(answered.substr(0, half), Micros{1}, WallMs{0});
        answer.feed(answered.substr(half), Micros{2}, WallMs{0});
        answer.end(Micros{3}, WallMs{0});
        EXPECT_TRUE(answer.over());
      }
    }
  }
}

// ------------------------------------------------------------------------------------------------- in a whole server

class Translated : public GatewayTest {
 protected:
  static constexpr const char* kAsk = R"({"model":"m","messages":[{"role":"user","content":"hi"}]})";
};

TEST_F(Translated, AStreamIsToldLineByLine) {
  const auto worker = host("w1", service("llamacpp"));
  const auto client = post("/ollama/api/chat", kAsk);
  pb::RelayOpen open;
  const auto stream = worker->opened(&open);
  EXPECT_EQ(open.path(), "/v1/chat/completions");
  EXPECT_TRUE(parsed(open.body()).at("stream").as_bool());
  EXPECT_TRUE(parsed(open.body()).at("stream_options").at("include_usage").as_bool());
  worker->head(stream, 200, "text/event-stream");
  worker->body(stream, kStream.substr(0, kStream.find("llo")));
  ASSERT_TRUE(client->until("\"He\"")) << "before anything else comes";
  worker->body(stream, kStream.substr(kStream.find("llo")));
  worker->end(stream);
  ASSERT_TRUE(client->over());
  EXPECT_TRUE(client->whole());
  EXPECT_EQ(client->header("content-type"), "application/x-ndjson");
  EXPECT_EQ(client->header("x-grange-service"), "llamacpp-1");
  EXPECT_EQ(lines_of(client->got()).size(), 5u);
  const auto figures = get("/api/gateway");
  EXPECT_EQ(figures.at("tokens_in").to_number<int>(), 30);
  EXPECT_EQ(figures.at("tokens_out").to_number<int>(), 20);
  EXPECT_EQ(figures.at("completed").to_number<int>(), 1);
  EXPECT_EQ(figures.at("usage_by_model").at(0).at("model").as_string(), "m");
  EXPECT_EQ(figures.at("usage_by_principal").at(0).at("tokens_out").to_number<int>(), 20);
  EXPECT_TRUE(figures.at("usage_since").is_string());
}

TEST_F(Translated, WholeAnswersEmbeddingsAndWhatNeedsNoService) {
  const auto worker = host("w1", service("openai"));
  const auto plain = post("/ollama/api/generate", R"({"model":"m","prompt":"p","stream":false})");
  worker->answer(worker->opened(), 200,
                 R"({"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}],
                     "usage":{"prompt_tokens":3,"completion_tokens":1}})");
  ASSERT_TRUE(plain->over());
  EXPECT_EQ(plain->header("content-type"), "application/json");
  EXPECT_EQ(parsed(plain->got()).at("response").as_string(), "Hi");
  EXPECT_EQ(parsed(plain->got()).at("eval_count").to_number<int>(), 1);
  const std::string vectors = R"({"data":[{"index":0,"embedding":[1.5,2]}],"usage":{"prompt_tokens":2}})";
  const auto embed = post("/ollama/api/embed", R"({"model":"m","input":"a"})");
  worker->answer(worker->opened(), 200, vectors);
  ASSERT_TRUE(embed->over());
  EXPECT_EQ(parsed(embed->got()).at("embeddings").at(0).at(0).to_number<double>(), 1.5);
  const auto old = post("/ollama/api/embeddings", R"({"model":"m","prompt":"a"})");
  worker->answer(worker->opened(), 200, vectors);
  ASSERT_TRUE(old->over());
  EXPECT_EQ(parsed(old->got()).at("embedding").at(1).to_number<double>(), 2);
  const auto show = ask("POST", "/ollama/api/show", R"({"model":"m"})");
  EXPECT_EQ(show.status, 200);
  EXPECT_EQ(parsed(show.body).at("details").at("family").as_string(), "llama");
  const auto loads = ask("POST", "/ollama/api/generate", R"({"model":"m"})");
  EXPECT_EQ(loads.status, 200);
  EXPECT_EQ(parsed(loads.body).at("done_reason").as_string(), "load");
  EXPECT_EQ(ask("POST", "/ollama/api/chat", R"({"model":"m","messages":"hi"})").status, 400);
}

TEST_F(Translated, ErrorsInOllamasShape) {
  const auto worker = host("w1", service("llamacpp"));
  const auto refused = post("/ollama/api/chat", kAsk);
  worker->answer(worker->opened(), 400, R"({"error":{"code":400,"message":"too \"long\"","type":"x"}})");
  ASSERT_TRUE(refused->over());
  EXPECT_EQ(refused->status(), 400);
  EXPECT_EQ(refused->got(), R"({"error":"too \"long\""})");
  const auto inside = post("/ollama/api/chat", kAsk);
  auto stream = worker->opened();
  worker->head(stream, 200, "text/event-stream");
  worker->body(stream, "data: {\"error\":{\"message\":\"boom\"}}\n\n");
  ASSERT_TRUE(inside->over());
  EXPECT_EQ(inside->status(), 502);
  EXPECT_EQ(inside->got(), R"({"error":"boom"})");
  const auto later = post("/ollama/api/chat", kAsk);
  stream = worker->opened();
  worker->head(stream, 200, "text/event-stream");
  worker->body(stream, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"He\"}}]}\n\n");
  ASSERT_TRUE(later->until("\"He\""));
  worker->body(stream, "data: {\"error\":{\"message\":\"boom\"}}\n\n");
  ASSERT_TRUE(later->over());
  EXPECT_TRUE(later->got().ends_with("\n{\"error\":\"boom\"}\n")) << later->got();
  const auto cut = post("/ollama/api/chat", kAsk);
  stream = worker->opened();
  worker->head(stream, 200, "text/event-stream");
  worker->body(stream, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"He\"}}]}\n\n");
  worker->end(stream);
  ASSERT_TRUE(cut->over());
  EXPECT_EQ(cut->got().find("\"done\":true"), std::string::npos) << "it was not complete";
  EXPECT_EQ(get("/api/gateway").at("failed").to_number<int>(), 4);
}

TEST_F(Translated, AnotherServiceTakesOverWhateverItSpeaks) {
  const auto first = host("w1", service("llamacpp", 0, true));
  const auto second = host("w2", service("ollama"));
  const auto client = post("/ollama/api/chat", kAsk);
  first->answer(first->opened(), 500, R"({"error":{"message":"boom"}})");
  pb::RelayOpen open;
  const auto stream = second->opened(&open);
  EXPECT_EQ(open.path(), "/api/chat");
  EXPECT_EQ(open.body(), kAsk);
  second->head(stream, 200, "application/x-ndjson");
  second->body(stream, "{\"done\":true}\n");
  second->end(stream);
  ASSERT_TRUE(client->over());
  EXPECT_EQ(client->got(), "{\"done\":true}\n");
}

}  // namespace
}  // namespace grange::server::gateway
