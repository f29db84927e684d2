// What both dialects promise beside their models: shapes of errors, models that are away, pings before an answer.
#include "server/gateway/gateway_testing.hpp"

namespace grange::server::gateway {
namespace {

using namespace testing;

const std::string kQuestion = R"({"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]})";

using GatewayDialects = GatewayTest;

TEST_F(GatewayDialects, APingIsNoAnswerYet) {
  const auto first = host("w1", service("openai", 0, true));
  const auto second = host("w2", service());
  for (const std::string way : {"break", "error", "nothing"}) {
    const auto client = post("/v1/chat/completions", kQuestion, {{"x-grange-session", way}});
    const auto stream = first->opened();
    first->head(stream, 200, "text/event-stream");
    first->body(stream, ": pi");
    first->body(stream, "ng\n\n: ping\n\n");
    if (way == "break") {
      first->end(stream, "The connection broke.");
    } else if (way == "error") {
      first->body(stream, "data: {\"error\":{\"message\":\"boom\"}}\n\n");
    } else {
      first->end(stream);
    }
    const auto again = second->opened();
    second->head(again, 200, "text/event-stream");
    second->body(again, ": ping\n\n");
    second->body(again, "data: ok\n\ndata: [DONE]\n\n");
    second->end(again);
    ASSERT_TRUE(client->over()) << way;
    EXPECT_EQ(client->got(), ": ping\n\ndata: ok\n\ndata: [DONE]\n\n") << way << ": verbatim, of the second alone";
    EXPECT_EQ(client->header("x-grange-worker"), "w2");
  }
  EXPECT_EQ(get("/api/gateway").at("failovers").to_number<int>(), 3);
}

TEST_F(GatewayDialects, AServicesErrorIsSaidInTheDialectThatWasAsked) {
  const auto worker = host("w1", service("ollama"));
  const auto open = post("/v1/chat/completions", kQuestion);
  worker->answer(worker->opened(), 400, R"({"error":"does not support \"tools\""})");
  ASSERT_TRUE(open->over());
  EXPECT_EQ(open->status(), 400);
  auto body = wire::parse_json(open->got());
  ASSERT_TRUE(body.ok()) << open->got();
  EXPECT_EQ(body->at("error").at("message").as_string(), "does not support \"tools\"");
  EXPECT_EQ(body->at("error").at("type").as_string(), "invalid_request_error");
  EXPECT_TRUE(body->at("error").at("code").is_string());
  const auto own = post("/ollama/api/chat", kQuestion);
  worker->answer(worker->opened(), 400, R"({"error":{"message":"as OpenAI says it"}})");
  ASSERT_TRUE(own->over());
  EXPECT_EQ(own->got(), R"({"error":"as OpenAI says it"})");
  const auto text = post("/v1/chat/completions", kQuestion);
  worker->answer(worker->opened(), 400, "no JSON at all");
  ASSERT_TRUE(text->over());
  EXPECT_EQ(wire::parse_json(text->got())->at("error").at("message").as_string(), "no JSON at all");
}

TEST_F(GatewayDialects, WrongPathsAnswerInTheDialectOfTheirPlace) {
  for (const char* path : {"/v1/nothing", "/v1"}) {
    const auto open = ask("GET", path);
    EXPECT_EQ(open.status, 404);
    const auto error = wire::parse_json(open.body)->at("error");
    EXPECT_EQ(error.at("type").as_string(), "invalid_request_error") << open.body;
    EXPECT_TRUE(error.as_object().contains("param"));
  }
  const auto own = ask("POST", "/ollama/api/pull", "{}");
  EXPECT_EQ(own.status, 404);
  EXPECT_TRUE(wire::parse_json(own.body)->at("error").is_string()) << own.body;
  EXPECT_EQ(ask("GET", "/v1/chat/completions").status, 405);
  EXPECT_TRUE(wire::parse_json(ask("GET", "/ollama/api/chat").body)->at("error").is_string());
  EXPECT_TRUE(wire::parse_json(ask("GET", "/api/nothing").body)->at("error").as_object().contains("details"));
  const auto root = ask("GET", "/ollama/");
  EXPECT_EQ(root.status, 200);
  EXPECT_EQ(root.body, "Ollama is running");
  EXPECT_EQ(ask("HEAD", "/ollama/").status, 200);
  EXPECT_EQ(ask("GET", "/ollama").body, "Ollama is running");
}

TEST_F(GatewayDialects, AModelThatWasHereIsWaitedForAndOneThatNeverWasIsNot) {
  const auto unknown = ask("POST", "/v1/chat/completions", R"({"model":"never"})");
  EXPECT_EQ(unknown.status, 404);
  auto worker = host("w1", service("llamacpp"));
  worker->line().drop();
  worker = nullptr;
  const auto impatient = post("/v1/chat/completions", kQuestion, {{"Prefer", "wait=1"}});
  ASSERT_TRUE(counted("waiting", 1));
  ASSERT_TRUE(impatient->over());
  EXPECT_EQ(impatient->status(), 503);
  EXPECT_EQ(impatient->header("retry-after"), "10");
  EXPECT_EQ(wire::parse_json(impatient->got())->at("error").at("code").as_string(), "away");
  // The store knows of it, too: after a restart it is still waited for, and served when it comes.
  stop();
  start();
  const auto patient = post("/v1/chat/completions", kQuestion);
  ASSERT_TRUE(counted("waiting", 1));
  worker = host("w1", service("llamacpp"));
  worker->answer(worker->opened(), 200, "{}");
  ASSERT_TRUE(patient->over());
  EXPECT_EQ(patient->status(), 200);
  EXPECT_EQ(ask("POST", "/v1/chat/completions", R"({"model":"never"})").status, 404);
}

}  // namespace
}  // namespace grange::server::gateway
