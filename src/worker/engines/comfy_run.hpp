// One prompt on one ComfyUI, from the check of its files to the bytes of its pictures. Its WebSocket tells how it goes,
// /history is the truth. Whatever way it ends, nothing of it is left waiting or running there.
#pragma once

#include <boost/json/object.hpp>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "net/connection_manager.hpp"
#include "net/http_client.hpp"
#include "worker/engines/comfy_messages.hpp"
#include "worker/engines/failure.hpp"

namespace grange::worker {

struct ComfyTimes {
  Millis stall{300'000};    // it runs, and nothing moves: the largest checkpoint from a slow disk
  Millis total{7'200'000};  // from the submit on
  Millis lost{60'000};      // without any word of the service
  Millis look{2'000};       // at /history, while the WebSocket tells what happens
  Millis look_alone{500};   // and while it does not
  Millis look_soon{50};     // and once it is told to be through; doubles
  Millis clean_up{10'000};  // for the service to let go
};

struct ComfyPicture {
  ComfyFile file;
  std::string bytes;
};
struct ComfyEnd {
  std::optional<EngineFailure> failure;
  std::vector<ComfyPicture> pictures;
  bool cached = false;                  // it was made before: nothing was computed
  double wall_seconds = 0;              // from the submit until it was through
  std::optional<double> queue_seconds;  // of these, behind others
  std::optional<double> exec_seconds;   // by the service's own clock
};

class ComfyRun : public std::enable_shared_from_this<ComfyRun> {
 public:
  struct Setup {
    net::Loop& loop;
    net::HttpClient& http;
    const Clock& clock;
    std::string name, url, key;  // of the service
    std::string prompt_id;
    boost::json::object workflow;
    ComfyTimes times = {};
    bool previews = false;
  };
  struct Heard {
    std::function<void(std::size_t ahead)> queued = {};
    std::function<void(const ComfyEvent&)> progress = {}, preview = {};
    std::function<void(ComfyEnd)> ended;  // once, last
  };
  ComfyRun(Setup setup, Heard heard);
  ~ComfyRun();
  void start();
  // Ends it: it is taken back from the service, and then `ended` comes.
  void stop(EngineFailure why);
  // Of one that another process submitted: only takes it back.
  void only_clean_up();

 private:
  enum class Phase { checking, submitting, watching, fetching, cleaning, over };
  using Answer = Result<net::ClientResponse>;
  void ask(std::string method, const std::string& path, std::string body, std::function<void(const Answer&)> done,
           Bytes limit);
  void after(std::unique_ptr<net::Timer>& timer, Millis delay, std::function<void()> work);
  Instant now() const { return setup_.clock.now().mono; }

  void check();
  void checked(const std::string& klass, const Answer& answer);
  void dial();
  void dialled(Result<net::ConnectionPtr> connection);
  void redial();
  void submit();
  void submitted(const Answer& answer);
  void heard(std::string message, bool binary);
  bool ours(const ComfyEvent& event) const;
  void look_in(Millis delay);
  void look();
  void look_at_queue();
  void no_answer(const Error& error);
  void watch_times();
  void through(ComfyHistory history);
  void fetch();
  void fail(EngineFailure why);
  void clean_up();
  void clean_queue();
  void clean_history();
  void end();

  Setup setup_;
  Heard heard_;
  Phase phase_ = Phase::checking;
  std::list<std::unique_ptr<net::HttpClient::Call>> calls_;
  std::unique_ptr<net::Dialer> dialer_;
  std::unique_ptr<net::Dialer::Attempt> attempt_;
  net::ConnectionPtr socket_;
  std::unique_ptr<net::Timer> redial_, look_, clock_, patience_;
  std::string client_id_;
  int dials_ = 0, missed_ = 0, opening_ = 0;
  std::size_t to_check_ = 0;
  bool ready_to_submit_ = false, sent_ = false, running_ = false, told_through_ = false, looking_ = false;
  bool posting_ = false;  // the submit is on its way
  Millis soon_{0};
  Instant began_{}, sign_{}, word_{}, cleaning_since_{};
  std::optional<Instant> ran_;
  std::set<std::string> cached_;
  std::vector<ComfyFile> files_;
  ComfyEnd end_;
};

// A UUID as newer ComfyUIs want their prompts to be named: canonical, in lower case.
std::string new_prompt_id();

}  // namespace grange::worker
