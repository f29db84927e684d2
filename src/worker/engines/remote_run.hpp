// One piece of work at a service that is reached with a key. What all of them share: the key in each request and in no
// message, waits that the service asks for, a cancel that waits for the id of what is to be cancelled.
#pragma once

#include <boost/json/object.hpp>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "net/http_client.hpp"
#include "worker/engines/failure.hpp"
#include "worker/engines/remote_rules.hpp"

namespace grange::worker {

struct RemoteTimes {
  Millis wait_at_most{20'000};  // that a service may ask for; beyond it the attempt fails as busy
  Millis wait_first{1'000};     // where it does not say how long; doubles
  Millis poll_first{500};
  Millis poll_last{5'000};
  Millis lost{60'000};      // without an answer while it works
  Millis silence{600'000};  // of one answer
  Millis cancel{10'000};    // for the service to hear of it
  Millis look{1'000};       // then until it is told again; doubles
};

struct RemoteFile {  // that the service made: here already, or to be fetched without a key
  std::string name, url, bytes;
};
struct RemoteEnd {
  std::optional<EngineFailure> failure;
  boost::json::object value;
  std::vector<RemoteFile> files;
  std::optional<double> cost;     // as the service states it
  std::optional<double> seconds;  // of its machine, as it states them
  std::optional<std::uint64_t> tokens_in, tokens_out;
  bool left_open = false;  // it may go on there: that it is cancelled was not heard
};

class RemoteRun : public std::enable_shared_from_this<RemoteRun> {
 public:
  struct Setup {
    net::Loop& loop;
    net::HttpClient& http;
    const Clock& clock;
    std::string name, url, key;  // of the service
    std::string op, target;
    boost::json::value input;
    bool stream = false;
    RemoteTimes times = {};
  };
  struct Heard {
    std::function<void(const std::string& type, boost::json::object data)> event = {};
    std::function<void(double done, double total, const std::string& text)> progress = {};
    std::function<void(const std::string& path)> opened = {};  // POST this to cancel what is under way there
    std::function<void(RemoteEnd)> ended = {};                 // once, last
  };
  RemoteRun(Setup setup, Heard heard) : setup_(std::move(setup)), heard_(std::move(heard)) {}
  virtual ~RemoteRun() = default;
  virtual void start() = 0;
  // Cancelled at the service, as far as it can be, and then `ended` comes.
  void stop();
  void pause(bool on);  // the reading of what it streams

 protected:
  using Answer = Result<net::ClientResponse>;
  struct Ask {
    std::string method = "GET";
    std::string path = {};  // below the service's URL
    std::string body = {};  // JSON
    Headers headers = {};
    bool once = false;                                    // it is billed, or starts something: not to be done twice
    Bytes limit = 256 * MiB;                              // of its answer
    bool awaited = false;                                 // its answer names what is to be cancelled
    std::function<void(std::string_view)> on_chunk = {};  // of a 2xx
  };
  // `done` gets an answer of 2xx; all else has failed the run, or (not `once`) is tried again for a while.
  void ask(Ask what, std::function<void(const net::ClientResponse&)> done);
  void request(const Ask& what, const std::string& url, std::function<void(const Answer&)> done);
  void later(Millis delay, std::function<void()> work);
  bool over() const { return over_; }
  bool stopping() const { return stopping_; }
  Instant now() const { return setup_.clock.now().mono; }
  virtual std::string kind() const = 0;         // as ai::classify knows it
  virtual std::optional<Ask> cancelling() = 0;  // none: nothing is there to cancel
  virtual bool begun() const { return false; }  // some of an answer has come

  void fail(EngineFailure why);
  void fail_by(int status, std::string_view body, std::string_view more = {});
  void succeed(RemoteEnd end);
  void opened();  // it has a name there

  Setup setup_;
  Heard heard_;

 private:
  void answered(const std::shared_ptr<Ask>& what, const std::function<void(const net::ClientResponse&)>& done,
                const Answer& answer);
  void refused(const std::shared_ptr<Ask>& what, const std::function<void(const net::ClientResponse&)>& done,
               const net::ClientResponse& answer);
  void send(const std::shared_ptr<Ask>& what, std::function<void(const net::ClientResponse&)> done);
  void cancel_there(RemoteEnd last);
  void end(RemoteEnd end);

  std::list<std::unique_ptr<net::HttpClient::Call>> calls_;
  std::unique_ptr<net::Timer> later_, patience_;
  std::optional<Instant> trouble_since_;
  int waits_ = 0;
  bool awaiting_ = false, stopping_ = false, ending_ = false, heard_there_ = false, over_ = false;
};

std::shared_ptr<RemoteRun> make_openai_run(RemoteRun::Setup setup, RemoteRun::Heard heard);
std::shared_ptr<RemoteRun> make_replicate_run(RemoteRun::Setup setup, RemoteRun::Heard heard);
std::shared_ptr<RemoteRun> make_runpod_run(RemoteRun::Setup setup, RemoteRun::Heard heard);

}  // namespace grange::worker
