// Services that workers keep running over REST: how they are shown, the jobs that change them, and their logs, whatever
// a worker sends.
#include "server/gateway/gateway_testing.hpp"

namespace grange::server::gateway {
namespace {

using namespace testing;

class KeptServices : public GatewayTest {
 protected:
  static pb::Service kept(const std::string& care = "ready") {
    pb::Service out = service("ollama");
    out.set_state(care == "ready" ? "ready" : "down");
    out.set_managed(true);
    out.set_care(care);
    out.set_pid(4711);
    out.set_restarts(2);
    out.set_since_ms(1'700'000'000'000);
    out.set_last_error("It ended with exit code 3.");
    return out;
  }
  boost::json::object shown(const std::string& worker) {
    return get("/api/workers/" + worker).at("services").at(0).as_object();
  }
  std::string message(const net::ClientResponse& answer) {
    const auto value = wire::parse_json(answer.body);
    return value ? std::string(value->at("error").at("message").as_string()) : "";
  }
};

TEST_F(KeptServices, AreShown) {
  const auto one = host("w1", kept());
  const auto two = host("w2", kept("backing_off"));
  const auto three = host("w3", service("ollama"));
  auto first = shown("w1");
  EXPECT_EQ(first.at("state").as_string(), "ready");
  EXPECT_TRUE(first.at("managed").as_bool());
  EXPECT_EQ(first.at("pid").to_number<int>(), 4711);
  EXPECT_EQ(first.at("restarts").to_number<int>(), 2);
  EXPECT_EQ(first.at("since_ms").to_number<std::int64_t>(), 1'700'000'000'000);
  EXPECT_EQ(first.at("last_error").as_string(), "It ended with exit code 3.");
  EXPECT_TRUE(first.at("memory_bytes").is_null());
  EXPECT_EQ(shown("w2").at("state").as_string(), "backing_off");
  EXPECT_FALSE(shown("w3").at("managed").as_bool());
  EXPECT_TRUE(shown("w3").at("pid").is_null());
  pb::Frame beat;
  beat.mutable_heartbeat();
  pb::ServiceLoad& load = *beat.mutable_heartbeat()->add_services();
  load.set_name("ollama-1");
  load.set_cpu_percent(150.5);
  load.set_memory_bytes(1 << 20);
  one->line().send(one->session.unnumbered(beat), true);
  for (int i = 0; i < 500 && shown("w1").at("memory_bytes").is_null(); ++i) std::this_thread::sleep_for(5ms);
  EXPECT_EQ(shown("w1").at("memory_bytes").to_number<int>(), 1 << 20);
  EXPECT_EQ(shown("w1").at("cpu_percent").to_number<double>(), 150.5);
}

TEST_F(KeptServices, ChangeByJobsOfTheirMachine) {
  const auto one = host("w1", kept("stopped"));
  const auto two = host("w2", service("ollama"));
  for (const std::string op : {"start", "stop", "restart"}) {
    const auto answer = ask("POST", "/api/workers/w1/services/ollama-1/" + op, "");
    ASSERT_EQ(answer.status, 202) << answer.body;
    const auto job = std::string(wire::parse_json(answer.body)->at("job_id").as_string());
    const auto spec = get("/api/jobs/" + job + "/spec").as_object();
    EXPECT_EQ(spec.at("models").at("op").as_string(), op);
    EXPECT_EQ(spec.at("models").at("service").as_string(), "ollama-1");
    EXPECT_EQ(spec.at("labels").at("grange.worker").as_string(), "w1");
  }
  const auto found = ask("POST", "/api/workers/w2/services/ollama-1/stop", "");
  EXPECT_EQ(found.status, 409);
  EXPECT_NE(message(found).find("services file"), std::string::npos);
  const auto missing = ask("POST", "/api/workers/w1/services/ollama/stop", "");
  EXPECT_EQ(missing.status, 404);
  EXPECT_NE(message(missing).find("Did you mean \"ollama-1\"?"), std::string::npos);
  EXPECT_EQ(ask("POST", "/api/workers/w1/services/ollama-1/stop", R"({"command":["sh"]})").status, 400);
}

TEST_F(KeptServices, LogsComeOverTheSession) {
  const auto one = host("w1", kept());
  const std::string path = "/api/workers/w1/services/ollama-1/log";
  const auto ask_log = [&](const std::string& query) {
    return std::make_unique<Reader>(loop_, *client_,
                                    net::ClientRequest{.method = "GET", .url = server_->url() + path + query});
  };
  const auto head = [&](std::uint64_t stream, const std::string& end) {
    pb::Relay out;
    out.mutable_head()->set_status(200);
    pb::RelayHeader& header = *out.mutable_head()->add_headers();
    header.set_name("x-log-end");
    header.set_value(end);
    one->say(stream, out);
  };
  pb::RelayOpen open;
  auto asked = ask_log("?lines=7&after=12");
  auto stream = one->opened(&open);
  EXPECT_EQ(open.service(), "ollama-1");
  EXPECT_EQ(open.log_lines(), 7u);
  EXPECT_EQ(open.headers(0).value(), "12");
  head(stream, "34");
  one->body(stream, "a\n");
  one->body(stream, "ü\n");
  one->end(stream);
  ASSERT_TRUE(asked->over());
  EXPECT_EQ(asked->status(), 200);
  EXPECT_EQ(asked->got(), "a\nü\n");
  EXPECT_EQ(asked->header("x-log-end"), "34");
  EXPECT_EQ(asked->header("content-type"), "text/plain; charset=utf-8");
  // What a worker may also do.
  asked = ask_log("");
  stream = one->opened();
  head(stream, "34\r\nx-evil: 1");
  one->body(stream, "a\xff");
  one->end(stream);
  ASSERT_TRUE(asked->over());
  EXPECT_EQ(asked->status(), 500);
  asked = ask_log("");
  stream = one->opened();
  head(stream, "no number");
  for (int i = 0; i < 5; ++i) one->body(stream, std::string(256 * KiB, 'x'));
  ASSERT_TRUE(asked->over());
  EXPECT_EQ(asked->status(), 413);
  one->body(stream, "more");  // of what is over: nothing
  asked = ask_log("");
  one->end(one->opened(), "It has no such service.");
  ASSERT_TRUE(asked->over());
  EXPECT_EQ(asked->status(), 503);
  EXPECT_NE(asked->got().find("It has no such service."), std::string::npos);
  asked = ask_log("");
  one->opened();
  one->line().drop();
  ASSERT_TRUE(asked->over());
  EXPECT_EQ(asked->status(), 503);
}

}  // namespace
}  // namespace grange::server::gateway
