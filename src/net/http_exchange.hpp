// One request, its answer, and what the handler asked for so far. The session acts on it.
#pragma once

#include <atomic>
#include <deque>

#include "net/listener.hpp"

namespace grange::net {

// What one body holds of the memory that all bodies of a listener may hold. Let go of on any thread.
class BodyShare {
 public:
  BodyShare(std::shared_ptr<std::atomic<Bytes>> total, Bytes budget) : total_(std::move(total)), budget_(budget) {}
  ~BodyShare() { *total_ -= mine_; }
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;
  bool fits(Bytes more) const { return more <= budget_ && *total_ <= budget_ - more; }
  bool take(Bytes more) {
    if (!fits(more)) return false;
    *total_ += more;
    mine_ += more;
    return true;
  }

 private:
  std::shared_ptr<std::atomic<Bytes>> total_;
  Bytes budget_, mine_ = 0;
};

struct ExchangeState {
  enum class Answer { none, whole, file, stream };

  HttpRequest request;
  std::unique_ptr<BodyShare> share;  // of its body
  Answer answer = Answer::none;
  HttpResponse response;
  std::string file;
  std::uint64_t offset = 0, length = 0;
  // a stream
  std::deque<std::string> chunks;
  std::size_t chunk_bytes = 0;
  bool ended = false, held_back = false;
  bool dropped = false;  // the handler let go of it
  bool over = false;     // answered, or the peer left: nothing that the handler does matters any more
  // a body that goes to a file
  bool body_unread = false, body_wanted = false;
  std::string body_file;
  std::uint64_t body_offset = 0;
  Bytes body_limit = 0;
  std::function<void(Result<std::uint64_t>)> body_done;
  std::function<void()> gone, writable;
  std::function<void()> wake;  // the session
};

// What the handler holds.
class Exchange final : public HttpExchange {
 public:
  Exchange(Loop& loop, std::shared_ptr<ExchangeState> state) : loop_(loop), state_(std::move(state)) {}
  ~Exchange() override;
  HttpRequest& request() override { return state_->request; }
  void respond(HttpResponse response) override;
  void respond_file(HttpResponse head, std::string file, std::uint64_t offset, std::uint64_t length) override;
  void start_stream(HttpResponse head) override;
  bool write(std::string chunk) override;
  void end_stream() override;
  void on_closed(std::function<void()> gone) override;
  void on_writable(std::function<void()> ready) override;
  void cut(const Error& why) override;
  void read_body_to_file(std::string file, std::uint64_t offset, Bytes limit,
                         std::function<void(Result<std::uint64_t>)> done) override;

 private:
  bool begin(ExchangeState::Answer answer, HttpResponse head);
  void wake();
  Loop& loop_;
  std::shared_ptr<ExchangeState> state_;
};

}  // namespace grange::net
