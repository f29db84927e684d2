#include "server/gateway/dialect.hpp"

#include <gtest/gtest.h>

#include "wire/json_dialect.hpp"

namespace grange::server::gateway {
namespace {

const Passed& chat = *passed("/v1/chat/completions");

TEST(Dialect, WhatIsAskedFor) {
  EXPECT_EQ(passed("/v1/chat/completions/"), &chat);
  EXPECT_EQ(passed("/v1/images"), nullptr);
  EXPECT_EQ(passed("/ollama/api/chat")->upstream, "/api/chat");
  const auto asked = read_ask(*passed("/ollama/api/chat"), R"({"model":"a","options":{"num_ctx":9000}})", "");
  ASSERT_TRUE(asked.ok());
  EXPECT_EQ(asked->ask.model, "a");
  EXPECT_EQ(asked->ask.context, 9000u);
  EXPECT_EQ(asked->ask.dialect, Dialect::ollama);
  for (const char* bad : {"", "[]", "{", R"({"model":7})", R"({"messages":[]})", R"({"model":""})"})
    EXPECT_FALSE(read_ask(chat, bad, "").ok()) << bad;
  EXPECT_TRUE(read_ask(*passed("/v1/embeddings"), R"({"model":"a","encoding_format":"base64"})", "")->base64);
  EXPECT_TRUE(read_ask(*passed("/ollama/api/show"), R"({"name":"old"})", "")->ask.light);
}

TEST(Dialect, AConversationIsKnownByItsBeginning) {
  const auto key = [](std::string_view body, std::string_view session = "") {
    return read_ask(chat, body, session)->ask.affinity;
  };
  const auto first = key(R"({"model":"a","messages":[{"role":"system","content":"s"},{"role":"user","content":"q"}]})");
  EXPECT_NE(first, 0u);
  EXPECT_EQ(first, key(R"({"model":"a","messages":[{"role":"system","content":"s"},{"role":"user","content":"q"},
                          {"role":"assistant","content":"x"},{"role":"user","content":"next"}]})"));
  EXPECT_NE(first, key(R"({"model":"a","messages":[{"role":"system","content":"s"},{"role":"user","content":"r"}]})"));
  EXPECT_NE(first, key(R"({"model":"b","messages":[{"role":"system","content":"s"},{"role":"user","content":"q"}]})"));
  EXPECT_EQ(key(R"({"model":"a","user":"u","messages":[{"role":"user","content":"1"}]})"),
            key(R"({"model":"a","user":"u","messages":[{"role":"user","content":"2"}]})"));
  EXPECT_EQ(key(R"({"model":"a","messages":[{"role":"user","content":"1"}]})", "s1"), key(R"({"model":"a"})", "s1"));
  EXPECT_EQ(key(R"({"model":"a"})"), 0u);
  EXPECT_EQ(key(R"({"model":"a","messages":"none"})"), 0u);
  EXPECT_NE(key(R"({"model":"a","messages":[{"role":"user","content":[{"type":"text","text":"q"}]}]})"), 0u);
}

TEST(Dialect, CommentsBeginNoAnswer) {
  for (const char* nothing : {"", ":", ": ping", ": ping\n", ": a\r\n\r\n: b\n\n", "\n\n", "\xEF\xBB\xBF: a\n"})
    EXPECT_EQ(after_comments(nothing), "") << nothing;
  EXPECT_EQ(after_comments(": ping\n\nd"), "d");
  EXPECT_EQ(after_comments("data: 1\n\n: ping\n\n"), "data: 1\n\n: ping\n\n");
  EXPECT_EQ(after_comments("event: x"), "event: x");
}

TEST(Dialect, ErrorsOfServicesInBothShapes) {
  const auto openai = [](std::string_view body) { return error_in(Dialect::openai, 404, body); };
  const auto ollama = [](std::string_view body) { return error_in(Dialect::ollama, 404, body); };
  EXPECT_EQ(openai(R"({"error":{"message":"m","code":404}})"), std::nullopt) << "it is as it should be";
  EXPECT_EQ(ollama(R"({"error":"m"})"), std::nullopt);
  EXPECT_EQ(ollama(R"({"error":{"message":"m","code":404}})"), R"({"error":"m"})");
  EXPECT_EQ(openai(R"({"error":"m"})"),
            R"({"error":{"message":"m","type":"invalid_request_error","param":null,"code":"upstream_error"}})");
  EXPECT_EQ(ollama(R"({"detail":"Not Found"})"), R"({"error":"Not Found"})");
  EXPECT_EQ(ollama(R"({"error":{}})"), R"({"error":"{\"error\":{}}"})");
  EXPECT_EQ(ollama("plain"), R"({"error":"plain"})");
  EXPECT_NE(ollama("\xff\xfe")->find("404"), std::string::npos);
  EXPECT_NE(ollama("")->find("404"), std::string::npos);
}

TEST(Dialect, FaultsInEachShape) {
  Fault fault{503, "model_loading", "model_loading", "It \"loads\".", 5};
  fault.loading = R"({"state":"loading"})";
  EXPECT_EQ(fault_body(Dialect::openai, fault),
            R"({"error":{"message":"It \"loads\".","type":"model_loading","param":null,"code":"model_loading"},)"
            R"("loading":{"state":"loading"}})");
  fault.loading.clear();
  EXPECT_EQ(fault_body(Dialect::ollama, fault), R"({"error":"It \"loads\"."})");
  EXPECT_TRUE(fault_in_stream(Framing::sse, fault, "data: {}\n\n").starts_with("data: {\"error\""));
  EXPECT_TRUE(fault_in_stream(Framing::sse, fault, "data: {\"half").starts_with("\n\ndata: {\"error\""));
  EXPECT_TRUE(fault_in_stream(Framing::sse, fault, "").ends_with("\n\n"));
  EXPECT_EQ(fault_in_stream(Framing::ndjson, fault, "{}\n"), "{\"error\":\"It \\\"loads\\\".\"}\n");
  EXPECT_TRUE(fault_in_stream(Framing::ndjson, fault, "{\"half").starts_with("\n{"));
  EXPECT_EQ(fault_in_stream(Framing::whole, fault, "{\"half"), "");
  EXPECT_EQ(framing_of("text/event-stream; charset=utf-8"), Framing::sse);
  EXPECT_EQ(framing_of("application/x-ndjson"), Framing::ndjson);
  EXPECT_EQ(framing_of("application/json"), Framing::whole);
}

TEST(Dialect, AnErrorUnder200IsSeen) {
  for (const char* error :
       {"data: {\"error\":{}}\n\n", "{\"error\":\"x\"}", " { \"error\" : 1}", "error: {\"code\":500}\n"})
    EXPECT_TRUE(begins_with_error(error)) << error;
  for (const char* fine :
       {"data: {\"id\":1}\n\n", "{\"errors\":1}", "{\"error\":null}", "", ": ping\n\n", "data:", "{"})
    EXPECT_FALSE(begins_with_error(fine)) << fine;
}

TEST(Dialect, TokensAreCountedByTheEnd) {
  Tail sse;
  sse.add("data: {\"usage\":null,\"choices\":[]}\n\n");
  for (const char c : std::string("data: {\"choices\":[],\"usage\": {\"prompt_tokens\": 12, \"completion_tokens\":7,"
                                  "\"total_tokens\":19}}\n\ndata: [DONE]\n\n"))
    sse.add(std::string_view(&c, 1));
  EXPECT_EQ(sse.counts().in, 12u);
  EXPECT_EQ(sse.counts().out, 7u);
  Tail ollama;
  ollama.add(std::string(1 << 20, 'x'));
  ollama.add("{\"done\":true,\"prompt_eval_count\":26,\"prompt_eval_duration\":1,\"eval_count\":259}\n");
  EXPECT_EQ(ollama.counts().in, 26u);
  EXPECT_EQ(ollama.counts().out, 259u);
  EXPECT_LE(ollama.text().size(), 32u * 1024);
  Tail cached;  // a prompt that was in the cache is not counted by Ollama: then it is not known
  cached.add("{\"done\":true,\"eval_count\":3}\n");
  EXPECT_FALSE(cached.counts().in.has_value());
  EXPECT_EQ(cached.counts().out, 3u);
  Tail llama;
  llama.add("data: {\"timings\":{\"cache_n\":236,\"prompt_n\":1,\"predicted_n\":35,\"x\":0}}\n\ndata: [DONE]\n\n");
  EXPECT_EQ(llama.counts().in, 237u);
  EXPECT_EQ(llama.counts().out, 35u);
  Tail cut;
  cut.add("\"prompt_tokens\":12");
  EXPECT_FALSE(cut.counts().in.has_value()) << "digits may be missing";
  Tail none;
  none.add("data: [DONE]\n\n");
  EXPECT_FALSE(none.counts().in || none.counts().out);
}

TEST(Dialect, HeadersThatGoOn) {
  const auto up = headers_up({{"authorization", "Bearer secret"},
                              {"cookie", "a=b"},
                              {"host", "farm"},
                              {"accept", "text/event-stream"},
                              {"connection", "close"}});
  EXPECT_EQ(up.size(), 2u);
  EXPECT_EQ(up.at("accept"), "text/event-stream");
  EXPECT_EQ(up.at("content-type"), "application/json");
  for (const char* name : {"content-type", "retry-after", "openai-processing-ms"}) EXPECT_TRUE(goes_down(name)) << name;
  for (const char* name : {"connection", "set-cookie", "access-control-allow-origin", "transfer-encoding",
                           "content-length", "x-grange-worker", "location", "refresh"})
    EXPECT_FALSE(goes_down(name)) << name;
}

TEST(Dialect, VectorsBecomeBase64) {
  const auto out = with_base64(R"({"data":[{"embedding":[1.0,-0.5,2],"index":0}],"model":"m","usage":{"a":1}})");
  ASSERT_TRUE(out.has_value());
  const auto value = wire::parse_json(*out);
  // 00 00 80 3f, 00 00 00 bf, 00 00 00 40
  EXPECT_EQ(value->at("data").at(0).at("embedding").as_string(), "AACAPwAAAL8AAABA");
  EXPECT_EQ(value->at("usage").at("a").as_int64(), 1);
  EXPECT_FALSE(with_base64(R"({"data":[{"embedding":"AACAPw=="}]})").has_value());
  for (const char* other : {"", "{", "[]", R"({"data":1})", R"({"data":[{"embedding":["x"]}]})", R"({"error":"x"})"})
    EXPECT_FALSE(with_base64(other).has_value()) << other;
}

}  // namespace
}  // namespace grange::server::gateway
