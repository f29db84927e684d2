#include "ai/llm_request.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "ai/llm_options.hpp"

namespace grange::ai {
namespace {

namespace json = boost::json;

LlmCall call(std::string_view op, std::string_view prompt, std::string_view options = "",
             const json::value& argument = nullptr, std::string_view system = "") {
  auto read = read_call(op, "m", prompt, system, options, argument);
  EXPECT_TRUE(read.ok()) << (read.ok() ? "" : read.error().message);
  return std::move(read).value();
}

void same(const LlmHttp& got, std::string_view path, std::string_view body) {
  EXPECT_EQ(got.path, path);
  EXPECT_EQ(json::parse(got.body), json::parse(body)) << got.body;
}

TEST(LlmRequest, OllamaBodies) {
  const char* options =
      R"({"max_tokens":256,"num_ctx":4096,"temperature":0.2,"stop":"END","seed":7,"keep_alive":"10m","user":"u"})";
  const LlmHttp chat = http_of(call("chat", "Hi", options, nullptr, "Be short."), Dialect::ollama);
  same(
      chat, "/api/chat",
      R"({"model":"m","messages":[{"role":"system","content":"Be short."},{"role":"user","content":"Hi"}],"stream":true,
"keep_alive":"10m","options":{"temperature":0.2,"stop":["END"],"num_predict":256,"num_ctx":4096,"seed":7}})");
  EXPECT_TRUE(chat.stream);
  EXPECT_EQ(chat.dropped, std::vector<std::string>{"user"});
  same(http_of(call("generate", "Hi", R"({"stream":false})", nullptr, "S"), Dialect::ollama), "/api/generate",
       R"({"model":"m","prompt":"Hi","system":"S","stream":false})");
  const LlmHttp embed = http_of(call("embed", "", "", json::array{"a", "b"}), Dialect::ollama);
  same(embed, "/api/embed", R"({"model":"m","input":["a","b"]})");
  EXPECT_FALSE(embed.stream);
}

TEST(LlmRequest, OpenAiBodies) {
  const char* options =
      R"({"num_predict":256,"num_ctx":4096,"temperature":0.2,"stop":["END"],"cache_prompt":false,"keep_alive":"10m"})";
  const LlmHttp chat = http_of(call("chat", "Hi", options), Dialect::openai);
  same(chat, "/v1/chat/completions",
       R"({"model":"m","messages":[{"role":"user","content":"Hi"}],"temperature":0.2,"stop":["END"],"max_tokens":256,
"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_EQ(chat.dropped, (std::vector<std::string>{"cache_prompt", "keep_alive", "num_ctx"}));
  const LlmHttp llama =
      http_of(call("generate", "Hi", R"({"cache_prompt":false,"timings_per_token":true,"seed":3})"), Dialect::llamacpp);
  same(llama, "/v1/completions",
       R"({"model":"m","prompt":"Hi","cache_prompt":false,"timings_per_token":true,"seed":3,"stream":true,
"stream_options":{"include_usage":true}})");
  EXPECT_TRUE(llama.dropped.empty());
  same(http_of(call("embed", "Hi", R"({"encoding_format":"base64"})"), Dialect::openai), "/v1/embeddings",
       R"({"model":"m","input":"Hi","encoding_format":"base64"})");
}

TEST(LlmRequest, SchemasBothWays) {
  const auto openai =
      call("chat", "Hi", R"({"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}}})");
  EXPECT_EQ(json::parse(http_of(openai, Dialect::ollama).body).at("format"), json::parse(R"({"type":"object"})"));
  const auto ollama = call("chat", "Hi", R"({"format":{"type":"object"}})");
  EXPECT_EQ(json::parse(http_of(ollama, Dialect::openai).body).at("response_format").at("json_schema").at("schema"),
            json::parse(R"({"type":"object"})"));
  const auto plain = call("chat", "Hi", R"({"format":"json"})");
  EXPECT_EQ(json::parse(http_of(plain, Dialect::llamacpp).body).at("response_format"),
            json::parse(R"({"type":"json_object"})"));
  EXPECT_EQ(json::parse(http_of(plain, Dialect::ollama).body).at("format").as_string(), "json");
}

TEST(LlmRequest, MessagesToolsAndPicturesBothWays) {
  const json::value openai = json::parse(
      R"([{"role":"user","content":[{"type":"text","text":"What?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,QUJD"}}]},
{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
{"role":"tool","tool_call_id":"a","content":"2"}])");
  const json::value ollama = json::parse(
      R"([{"role":"user","content":"What?","images":["QUJD"]},
{"role":"assistant","content":"","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":{"x":1}}}]},
{"role":"tool","tool_call_id":"a","content":"2"}])");
  const char* options = R"({"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]})";
  const json::value to_ollama = json::parse(http_of(call("chat", "", options, openai), Dialect::ollama).body);
  EXPECT_EQ(to_ollama.at("messages"), ollama);
  EXPECT_EQ(to_ollama.at("tools").as_array().size(), 1u);
  const json::value to_openai = json::parse(http_of(call("chat", "", options, ollama), Dialect::openai).body);
  EXPECT_EQ(to_openai.at("messages").at(0), openai.at(0));
  EXPECT_EQ(to_openai.at("messages").at(1).at("tool_calls"), openai.at(1).at("tool_calls"));
  EXPECT_EQ(to_openai.at("tools").as_array().size(), 1u);
}

TEST(LlmRequest, TheArgumentTakesThePlaceOfTheBraces) {
  EXPECT_EQ(call("generate", "Say {} and {}.", "", "hi").prompt, "Say hi and hi.");
  EXPECT_EQ(call("generate", "", "", "hi").prompt, "hi");
  EXPECT_EQ(call("generate", "n={}", "", 5).prompt, "n=5");
  EXPECT_EQ(call("chat", "", "", "hi", "For {}").text(), "For hi\nhi");
  EXPECT_EQ(call("embed", "{}!", "", "hi").input, std::vector<std::string>{"hi!"});
  EXPECT_EQ(filled("{}{", "a"), "a{");
}

TEST(LlmRequest, RefusesWithASentence) {
  const auto refused = [](std::string_view op, std::string_view model, std::string_view prompt,
                          std::string_view options) {
    const auto read = read_call(op, model, prompt, "", options, nullptr);
    return read.ok() ? std::string() : read.error().message;
  };
  EXPECT_NE(refused("sing", "m", "p", "").find("'sing'"), std::string::npos);
  EXPECT_NE(refused("chat", "", "p", "").find("model"), std::string::npos);
  EXPECT_NE(refused("chat", "m", "", "").find("prompt"), std::string::npos);
  EXPECT_NE(refused("chat", "m", "p", "[]").find("object"), std::string::npos);
  EXPECT_NE(refused("chat", "m", "p", R"({"max_tokens":1.5})").find("'max_tokens'"), std::string::npos);
  EXPECT_NE(refused("chat", "m", "p", R"({"stop":[1]})").find("'stop'"), std::string::npos);
  EXPECT_NE(refused("embed", "m", "", "").find("embed"), std::string::npos);
  EXPECT_EQ(refused("chat", "m", "p", R"({"num_predict":-1,"seed":null})"), "");
  std::string braces;
  for (int i = 0; i < 1000; ++i) braces += "{}";
  EXPECT_FALSE(read_call("chat", "m", braces, "", "", json::value(json::string(std::size_t{1} << 20, 'x'))).ok());
}

TEST(LlmRequest, ASlipOfThePenIsRefusedAndWhatOnlyOneServiceKnowsGoesThrough) {
  const auto slip = read_call("chat", "m", "p", "", R"({"temprature":0})", nullptr);
  ASSERT_FALSE(slip.ok());
  EXPECT_NE(slip.error().message.find("Did you mean \"temperature\"?"), std::string::npos) << slip.error().message;
  EXPECT_NE(slip.error().message.find("extra"), std::string::npos);
  EXPECT_FALSE(check_options(R"({"extra":5})").ok());
  EXPECT_TRUE(check_options("").ok());
  EXPECT_TRUE(check_options(R"({"min_p":0.1,"repeat_penalty":1,"logit_bias":{},"cache_prompt":false,"top_k":1})").ok());
  const auto odd = call("chat", "Hi", R"({"extra":{"dream_depth":3},"cache_prompt":false})");
  EXPECT_EQ(json::parse(http_of(odd, Dialect::ollama).body).at("options").at("dream_depth"), 3);
  EXPECT_FALSE(json::parse(http_of(odd, Dialect::ollama).body).as_object().contains("cache_prompt"));
  EXPECT_EQ(json::parse(http_of(odd, Dialect::openai).body).at("dream_depth"), 3);
  EXPECT_FALSE(json::parse(http_of(odd, Dialect::openai).body).as_object().contains("extra"));
  EXPECT_FALSE(json::parse(http_of(odd, Dialect::openai).body).as_object().contains("cache_prompt"));
  EXPECT_EQ(json::parse(http_of(odd, Dialect::llamacpp).body).at("cache_prompt"), false);
}

TEST(LlmRequest, NoOptionTakesThePlaceOfTheRequestsOwnFields) {
  const json::value own = json::parse(
      R"({"model":"dear","stream":true,"stream_options":{},"messages":[],"prompt":"p2","input":"i2","top_k":1})");
  for (const char* inside : {"options", "extra"}) {
    for (const char* op : {"chat", "generate", "embed"}) {
      const json::object options{{"stream", false}, {inside, own}};
      const LlmCall asked = call(op, "Hi", json::serialize(options));
      for (const Dialect dialect : {Dialect::openai, Dialect::llamacpp, Dialect::ollama}) {
        const LlmHttp got = http_of(asked, dialect);
        const json::value body = json::parse(got.body);
        EXPECT_EQ(body.at("model"), "m") << got.body;
        const json::value* streams = body.as_object().if_contains("stream");
        EXPECT_TRUE(streams == nullptr || !streams->as_bool()) << got.body;
        if (dialect == Dialect::ollama) continue;  // what it does not know there is in its "options", and does nothing
        EXPECT_EQ(body.at("top_k"), 1);
        EXPECT_EQ(body.as_object().size(), 3u) << got.body;
        EXPECT_EQ(got.dropped.size(), 6u) << "and it is said";
      }
    }
  }
}

// Whatever comes is refused or makes a body that is JSON, with the same text for each service.
RC_GTEST_PROP(LlmRequest, AnyArgument, (const std::string& prompt, const std::string& key)) {
  json::object options{{"extra", json::object{{key, *rc::gen::inRange(-3, 3)}}}, {"stop", nullptr}};
  const auto read = read_call("chat", "m", prompt, "", json::serialize(options), json::value(key));
  if (!read.ok()) return;
  for (const Dialect dialect : {Dialect::ollama, Dialect::openai, Dialect::llamacpp}) {
    const json::value body = json::parse(http_of(*read, dialect).body, {}, {32, true, false, true});
    RC_ASSERT(body.at("messages").as_array().size() == 1u);
  }
}

}  // namespace
}  // namespace grange::ai
