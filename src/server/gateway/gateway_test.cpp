// The gateway in a whole server: clients over HTTP, workers in script form over their sessions.
#include "server/gateway/gateway_testing.hpp"

namespace grange::server::gateway {
namespace {

using namespace testing;

const std::string kChat = R"({"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]})";

TEST_F(GatewayTest, EveryPieceIsPassedOnAsItComes) {
  const auto worker = host("w1", service());
  const auto client =
      post("/v1/chat/completions", kChat, {{"Authorization", "Bearer secret"}, {"X-Request-Id", "r-7"}});
  pb::RelayOpen open;
  const auto stream = worker->opened(&open);
  EXPECT_EQ(open.service(), "openai-1");
  EXPECT_EQ(open.path(), "/v1/chat/completions");
  EXPECT_EQ(open.body(), kChat);
  EXPECT_GT(open.credit_bytes(), 0u);
  for (const pb::RelayHeader& header : open.headers()) EXPECT_EQ(header.value().find("secret"), std::string::npos);
  worker->head(stream, 200, "text/event-stream");
  worker->body(stream, "data: {\"a\":1}\n\n");
  ASSERT_TRUE(client->until("data: {\"a\":1}\n\n")) << "before anything else comes";
  worker->body(stream, ": ping\n\ndata: {\"ha");
  ASSERT_TRUE(client->until("{\"ha"));
  worker->body(stream, "lf\":2,\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n");
  worker->end(stream);
  ASSERT_TRUE(client->over());
  EXPECT_TRUE(client->whole());
  EXPECT_EQ(
      client->got(),
      "data: {\"a\":1}\n\n: ping\n\ndata: {\"half\":2,\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n"
      "data: [DONE]\n\n");
  EXPECT_EQ(client->status(), 200);
  EXPECT_EQ(client->header("content-type"), "text/event-stream");
  EXPECT_EQ(client->header("x-accel-buffering"), "no");
  EXPECT_EQ(client->header("cache-control"), "no-cache");
  EXPECT_EQ(client->header("x-grange-worker"), "w1");
  EXPECT_EQ(client->header("x-grange-service"), "openai-1");
  EXPECT_EQ(client->header("x-request-id"), "r-7");
  EXPECT_EQ(client->header("x-engine"), "e1");
  EXPECT_EQ(client->header("access-control-allow-origin"), "");
  const auto figures = get("/api/gateway");
  EXPECT_EQ(figures.at("tokens_in").to_number<int>(), 5);
  EXPECT_EQ(figures.at("tokens_out").to_number<int>(), 2);
  EXPECT_EQ(figures.at("active").to_number<int>(), 0);
  EXPECT_EQ(figures.at("usage").at(0).at("model").as_string(), "m");
  EXPECT_EQ(figures.at("usage").at(0).at("principal").as_string(), "local");
  const auto& recent = figures.at("recent").at(0);
  EXPECT_EQ(recent.at("end").as_string(), "completed");
  EXPECT_TRUE(recent.at("ttft_ms").is_double());
}

TEST_F(GatewayTest, AnotherServiceTakesOverBeforeTheFirstByte) {
  const auto first = host("w1", service("openai", 0, true));
  const auto second = host("w2", service());
  // A refusal, a break, an error under 200, and a worker that goes away.
  for (const std::string way : {"500", "break", "200", "lost"}) {
    const auto client = post("/v1/chat/completions", kChat, {{"x-grange-session", way}});
    const auto stream = first->opened();
    if (way == "500") {
      first->answer(stream, 500, R"({"error":{"message":"boom"}})");
    } else if (way == "break") {
      first->end(stream, "The connection broke.");
    } else if (way == "200") {
      first->head(stream, 200, "text/event-stream");
      first->body(stream, "data: {\"error\":{\"message\":\"boom\"}}\n\n");
    } else {
      first->head(stream, 200, "text/event-stream");
      first->line().drop();
    }
    pb::RelayOpen open;
    const auto again = second->opened(&open);
    EXPECT_EQ(open.body(), kChat) << way;
    second->head(again, 200, "text/event-stream");
    second->body(again, "data: ok\n\n");
    second->end(again);
    ASSERT_TRUE(client->over()) << way;
    EXPECT_EQ(client->got(), "data: ok\n\n") << way;
    EXPECT_EQ(client->header("x-grange-worker"), "w2");
  }
  EXPECT_EQ(get("/api/gateway").at("failovers").to_number<int>(), 4);
}

TEST_F(GatewayTest, WithNobodyElseTheServicesOwnWordsAreTheAnswer) {
  const auto worker = host("w1", service());
  const auto client = post("/v1/chat/completions", kChat);
  worker->answer(worker->opened(), 500, R"({"error":{"message":"boom"}})");
  ASSERT_TRUE(client->over());
  EXPECT_EQ(client->status(), 500);
  EXPECT_EQ(client->got(), R"({"error":{"message":"boom"}})");
  // And a request that is itself at fault is not tried again.
  const auto bad = post("/v1/chat/completions", kChat);
  worker->answer(worker->opened(), 400, R"({"error":{"message":"bad tools"}})");
  ASSERT_TRUE(bad->over());
  EXPECT_EQ(bad->status(), 400);
  EXPECT_EQ(bad->got(), R"({"error":{"message":"bad tools"}})");
  // A key that the service refuses is not the client's.
  const auto key = post("/v1/chat/completions", kChat);
  worker->answer(worker->opened(), 401, R"({"error":{"message":"Invalid API Key"}})");
  ASSERT_TRUE(key->over());
  EXPECT_EQ(key->status(), 502);
}

TEST_F(GatewayTest, AConnectionThatHadEndedIsTriedOnceMore) {
  const auto worker = host("w1", service());
  const auto client = post("/v1/chat/completions", kChat);
  worker->end(worker->opened(), "The connection broke.");
  worker->end(worker->opened(), "The connection broke again.");
  ASSERT_TRUE(client->over());
  EXPECT_EQ(client->status(), 502);
  EXPECT_NE(client->got().find("broke again"), std::string::npos);
}

TEST_F(GatewayTest, ALossAfterTheFirstByteIsSaid) {
  const auto worker = host("w1", service());
  const auto client = post("/v1/chat/completions", kChat);
  const auto stream = worker->opened();
  worker->head(stream, 200, "text/event-stream");
  worker->body(stream, "data: {\"a\":1}\n\n");
  ASSERT_TRUE(client->until("{\"a\":1}"));
  worker->line().drop();
  ASSERT_TRUE(client->over());
  EXPECT_TRUE(client->whole());
  const std::string& got = client->got();
  const auto at = got.find("data: {\"error\":");
  ASSERT_NE(at, std::string::npos) << got;
  const auto error = wire::parse_json(got.substr(at + 6, got.size() - at - 8));
  ASSERT_TRUE(error.ok()) << got;
  EXPECT_EQ(error->at("error").at("code").as_string(), "worker_lost");
  EXPECT_EQ(get("/api/gateway").at("recent").at(0).at("end").as_string(), "failed");
}

TEST_F(GatewayTest, ABreakInNdjsonAndInPlainJson) {
  const auto worker = host("w1", service("ollama"));
  const auto lines = post("/ollama/api/chat", kChat);
  pb::RelayOpen open;
  auto stream = worker->opened(&open);
  EXPECT_EQ(open.path(), "/api/chat");
  worker->head(stream, 200, "application/x-ndjson");
  worker->body(stream, "{\"message\":{}}\n");
  worker->end(stream, "It died.");
  ASSERT_TRUE(lines->over());
  EXPECT_EQ(lines->got(), "{\"message\":{}}\n{\"error\":\"It died.\"}\n");
  const auto plain = post("/v1/chat/completions", kChat);
  stream = worker->opened();
  worker->head(stream, 200, "application/json");
  worker->body(stream, "{\"half\":");
  worker->end(stream, "It died.");
  ASSERT_TRUE(plain->over());
  EXPECT_FALSE(plain->whole()) << "cut short, and seen to be";
}

TEST_F(GatewayTest, AClientThatLeavesCancels) {
  const auto worker = host("w1", service("openai", 1));
  auto client = post("/v1/chat/completions", kChat);
  const auto stream = worker->opened();
  worker->head(stream, 200, "text/event-stream");
  worker->body(stream, "data: 1\n\n");
  ASSERT_TRUE(client->until("data: 1"));
  auto waiting = post("/v1/chat/completions", kChat);
  ASSERT_TRUE(counted("waiting", 1));
  client->leave();
  const auto cancel = worker->relay();
  ASSERT_TRUE(cancel && cancel->has_cancel());
  EXPECT_EQ(cancel->stream(), stream);
  const auto next = worker->opened();  // its place is free
  EXPECT_NE(next, stream);
  worker->body(stream, "data: late\n\n");  // of a stream that is no more
  waiting->leave();
  const auto second = worker->relay();
  ASSERT_TRUE(second && second->has_cancel());
  EXPECT_TRUE(counted("cancelled", 2));
  EXPECT_TRUE(counted("active", 0));
  // One that waits leaves, too.
  const auto busy = post("/v1/chat/completions", kChat);
  worker->opened();
  auto third = post("/v1/chat/completions", kChat);
  ASSERT_TRUE(counted("waiting", 1));
  third->leave();
  EXPECT_TRUE(counted("waiting", 0));
}

TEST_F(GatewayTest, RequestsWaitForAPlaceInTheirOrder) {
  const auto worker = host("w1", service("llamacpp", 1, true));
  const auto first = post("/v1/chat/completions", kChat);
  auto stream = worker->opened();
  std::vector<std::unique_ptr<Reader>> others;
  for (int i = 0; i < 3; ++i) {
    others.push_back(post("/v1/chat/completions", R"({"model":"m","n":)" + std::to_string(i) + "}"));
    ASSERT_TRUE(counted("waiting", i + 1));
  }
  const auto impatient = post("/v1/chat/completions", kChat, {{"Prefer", "wait=0"}});
  ASSERT_TRUE(impatient->over());
  EXPECT_EQ(impatient->status(), 503);
  EXPECT_FALSE(impatient->header("retry-after").empty());
  EXPECT_EQ(wire::parse_json(impatient->got())->at("error").at("code").as_string(), "busy");
  worker->answer(stream, 200, "{}");
  for (int i = 0; i < 3; ++i) {
    pb::RelayOpen open;
    stream = worker->opened(&open);
    EXPECT_NE(open.body().find("\"n\":" + std::to_string(i)), std::string::npos) << open.body();
    worker->answer(stream, 200, "{}");
    ASSERT_TRUE(others[static_cast<std::size_t>(i)]->over());
    EXPECT_EQ(others[static_cast<std::size_t>(i)]->status(), 200);
  }
}

TEST_F(GatewayTest, ABusyServiceIsAskedAgainLater) {
  const auto worker = host("w1", service("ollama"));
  const auto client = post("/ollama/api/generate", R"({"model":"m","prompt":"p"})");
  worker->answer(worker->opened(), 503,
                 R"({"error":"server busy, please try again.  maximum pending requests exceeded"})");
  const auto again = worker->opened();
  worker->answer(again, 200, "{}");
  ASSERT_TRUE(client->over());
  EXPECT_EQ(client->status(), 200);
}

TEST_F(GatewayTest, AColdModelSaysSo) {
  pb::Service cold = service("llamacpp");
  cold.set_state("loading");
  const auto worker = host("w1", cold);
  const auto client = post("/v1/chat/completions", kChat, {{"Prefer", "wait=1"}});
  ASSERT_TRUE(client->over());
  EXPECT_EQ(client->status(), 503);
  EXPECT_EQ(client->header("retry-after"), "5");
  const auto body = wire::parse_json(client->got());
  ASSERT_TRUE(body.ok());
  EXPECT_EQ(body->at("error").at("type").as_string(), "model_loading");
  EXPECT_EQ(body->at("error").at("code").as_string(), "model_loading");
  EXPECT_EQ(body->at("loading").at("worker").as_string(), "w1");
  // It waits, and is served when the model is there.
  const auto patient = post("/v1/chat/completions", kChat);
  ASSERT_TRUE(counted("waiting", 1));
  pb::Frame report;
  pb::Manifest& manifest = *report.mutable_report()->mutable_manifest();
  manifest = worker->hello().worker().manifest();
  manifest.mutable_services(0)->set_state("ready");
  worker->send(report);
  worker->answer(worker->opened(), 200, "{}");
  ASSERT_TRUE(patient->over());
  EXPECT_EQ(patient->status(), 200);
}

TEST_F(GatewayTest, HowFarAColdModelIsIsPassedOn) {
  const auto worker = host("w1", service("llamacpp"));
  const auto client = post("/v1/chat/completions", kChat, {{"Prefer", "wait=1"}});
  const auto cold = R"({"error":{"code":503,"message":"Loading model","type":"unavailable_error"},)"
                    R"("loading":{"state":"staging","progress":0.41}})";
  // The client's second is over before it is asked again, or just after.
  worker->answer(worker->opened(), 503, cold);
  if (const auto again = worker->relay(1200ms); again && again->has_open()) worker->answer(again->stream(), 503, cold);
  ASSERT_TRUE(client->over());
  EXPECT_EQ(client->status(), 503);
  const auto body = wire::parse_json(client->got());
  EXPECT_EQ(body->at("error").at("code").as_string(), "model_loading");
  EXPECT_EQ(body->at("loading").at("progress").to_number<double>(), 0.41);
  EXPECT_EQ(body->at("loading").at("worker").as_string(), "w1");
}

TEST_F(GatewayTest, WhatCannotBeServedIsSaidInItsDialect) {
  const auto nobody = ask("POST", "/v1/chat/completions", kChat);
  EXPECT_EQ(nobody.status, 404);
  const auto worker = host("w1", service("llamacpp"));
  const auto unknown = ask("POST", "/v1/chat/completions", R"({"model":"n"})");
  EXPECT_EQ(unknown.status, 404);
  const auto error = wire::parse_json(unknown.body)->at("error");
  EXPECT_EQ(error.at("code").as_string(), "model_not_found");
  EXPECT_TRUE(error.at("param").is_null());
  EXPECT_NE(error.at("message").as_string().find("\"m\""), std::string::npos) << "the near one is named";
  const auto other = ask("POST", "/ollama/api/chat", R"({"model":"n"})");
  EXPECT_EQ(other.status, 404);
  EXPECT_TRUE(wire::parse_json(other.body)->at("error").is_string());
  EXPECT_EQ(ask("POST", "/v1/chat/completions", "{").status, 400);
  EXPECT_EQ(ask("POST", "/v1/chat/completions", "{}").status, 400);
  EXPECT_EQ(ask("GET", "/v1/chat/completions").status, 405);
  EXPECT_EQ(ask("POST", "/v1/chat/completions", kChat, {{"Origin", "http://evil.example"}}).status, 403);
}

TEST_F(GatewayTest, ListsOfModels) {
  pb::Service slashed = service("openai");
  slashed.mutable_models(0)->set_name("org/name");
  const auto one = host("w1", service("ollama", 0, true));
  const auto two = host("w2", slashed);
  const auto list = get("/v1/models");
  EXPECT_EQ(list.at("object").as_string(), "list");
  ASSERT_EQ(list.at("data").as_array().size(), 2u);
  EXPECT_EQ(list.at("data").at(0).at("id").as_string(), "m");
  EXPECT_EQ(list.at("data").at(0).at("grange").at("places").at(0).at("worker_id").as_string(), "w1");
  EXPECT_EQ(get("/v1/models/org/name").at("id").as_string(), "org/name");
  EXPECT_EQ(get("/v1/models/org%2Fname").at("object").as_string(), "model");
  EXPECT_EQ(get("/v1/models/m:latest").at("id").as_string(), "m");
  const auto missing = ask("GET", "/v1/models/org/nam");
  EXPECT_EQ(missing.status, 404);
  EXPECT_NE(missing.body.find("org/name"), std::string::npos);
  const auto tags = get("/ollama/api/tags");
  ASSERT_EQ(tags.at("models").as_array().size(), 2u) << "those of other services, too";
  const std::string modified(tags.at("models").at(0).at("modified_at").as_string());
  EXPECT_EQ(modified.size(), 24u) << modified;
  EXPECT_TRUE(modified.starts_with("20")) << modified;
  EXPECT_EQ(tags.at("models").at(0).at("details").at("family").as_string(), "llama");
  EXPECT_EQ(get("/ollama/api/ps").at("models").as_array().size(), 1u);
  EXPECT_EQ(get("/ollama/api/version").at("version").as_string(), "0.5.1");
}

TEST_F(GatewayTest, EmbeddingsAreBase64WhereThatWasAsked) {
  const auto worker = host("w1", service("ollama"));
  const std::string floats =
      R"({"data":[{"embedding":[1.0,-0.5,2],"index":0}],"usage":{"prompt_tokens":3,"total_tokens":3}})";
  const auto text = post("/v1/embeddings", R"({"model":"m","input":"x","encoding_format":"base64"})");
  worker->answer(worker->opened(), 200, floats);
  ASSERT_TRUE(text->over());
  EXPECT_NE(text->got().find("\"AACAPwAAAL8AAABA\""), std::string::npos) << text->got();
  const auto plain = post("/v1/embeddings", R"({"model":"m","input":"x"})");
  worker->answer(worker->opened(), 200, floats);
  ASSERT_TRUE(plain->over());
  EXPECT_EQ(plain->got(), floats);
}

TEST_F(GatewayTest, CreditFollowsWhatTheClientTakes) {
  const auto worker = host("w1", service());
  auto client = post("/v1/chat/completions", kChat);
  const auto stream = worker->opened();
  worker->head(stream, 200, "text/event-stream");
  std::uint64_t granted = kCredit, sent = 0;
  for (int i = 0; i < 64; ++i) {
    while (granted - sent < 64 * KiB) {
      const auto more = worker->relay();
      ASSERT_TRUE(more && more->has_credit()) << sent;
      granted += more->credit().bytes();
    }
    worker->body(stream, std::string(64 * KiB, 'x'));
    sent += 64 * KiB;
  }
  worker->end(stream);
  ASSERT_TRUE(client->over());
  EXPECT_EQ(client->got().size(), sent);
  // Who sends far more than was asked for is cut off.
  client = post("/v1/chat/completions", kChat);
  const auto flood = worker->opened();
  worker->head(flood, 200, "text/event-stream");
  worker->body(flood, "data: 1\n\n");
  ASSERT_TRUE(client->until("data: 1"));
  worker->body(flood, std::string(4 * MiB, 'x'));
  for (;;) {
    const auto told = worker->relay();
    ASSERT_TRUE(told.has_value());
    if (told->stream() == flood && told->has_cancel()) break;
  }
}

TEST_F(GatewayTest, AWorkerHasNoSayInAnothersStream) {
  const auto one = host("w1", service("openai", 0, true));
  const auto two = host("w2", service());
  const auto client = post("/v1/chat/completions", kChat);
  const auto stream = one->opened();
  two->head(stream, 200, "text/event-stream");
  two->body(stream, "data: forged\n\n");
  two->end(stream);
  two->body(99'999, "nothing");
  pb::Relay odd;
  odd.mutable_open();
  two->say(stream, odd);
  pb::Frame heartbeat;
  heartbeat.mutable_heartbeat();
  two->line().send(two->session.unnumbered(heartbeat), true);
  EXPECT_TRUE(counted("active", 1));
  one->head(stream, 200, "text/event-stream");
  one->body(stream, "data: real\n\n");
  one->end(stream);
  ASSERT_TRUE(client->over());
  EXPECT_EQ(client->got(), "data: real\n\n");
}

TEST_F(GatewayTest, AReconnectedWorkerIsUsedAgain) {
  const auto worker = host("w1", service());
  worker->line().drop();
  const auto client = post("/v1/chat/completions", kChat);  // it is missed: the request waits
  ASSERT_TRUE(counted("waiting", 1));
  worker->connect();
  ASSERT_TRUE(worker->next()->has_welcome());
  worker->answer(worker->opened(), 200, "{}");
  ASSERT_TRUE(client->over());
  EXPECT_EQ(client->status(), 200);
}

TEST_F(GatewayTest, StoppingEndsStreamsHonestly) {
  const auto worker = host("w1", service());
  const auto client = post("/v1/chat/completions", kChat);
  const auto stream = worker->opened();
  worker->head(stream, 200, "text/event-stream");
  worker->body(stream, "data: 1\n\n");
  ASSERT_TRUE(client->until("data: 1"));
  stop();
  ASSERT_TRUE(client->over());
  EXPECT_NE(client->got().find("\"code\":\"stopping\""), std::string::npos) << client->got();
}

}  // namespace
}  // namespace grange::server::gateway
