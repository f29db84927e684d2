#include "net/memory_transport.hpp"

#include <deque>
#include <optional>

#include "base/limits.hpp"

namespace grange::net {

namespace {

class MemoryConnection final : public Connection, public std::enable_shared_from_this<MemoryConnection> {
 public:
  MemoryConnection(Loop& loop, std::string peer) : loop_(loop), peer_(std::move(peer)) {}
  void join(const std::shared_ptr<MemoryConnection>& other) { other_ = other; }

  void set_events(ConnectionEvents events) override {
    if (finished_) return;
    events_ = std::make_shared<ConnectionEvents>(std::move(events));
    deliver_soon();
  }
  bool send(std::string message, bool binary) override {
    if (!open()) return false;
    ++counters_.messages_out;
    counters_.bytes_out += message.size();
    unsent_ += message.size();
    other_->inbox_.push_back({std::move(message), binary});
    other_->deliver_soon();
    if (unsent_ <= limits::kOutboxBytes) return true;
    held_back_ = true;
    return false;
  }
  void close(std::uint16_t code, std::string reason) override {
    if (!open()) return;
    const std::string why = " (" + std::to_string(code) + ")" + (reason.empty() ? "" : ": " + reason);
    closed_ = Error{ErrorClass::unavailable, "closed by this side" + why};
    if (!other_->closed_) other_->closed_ = Error{ErrorClass::unavailable, "the peer closed the connection" + why};
    deliver_soon();
    other_->deliver_soon();
  }
  // Its handle was let go of: nobody listens here any more.
  void abandon() {
    close(1001, {});
    finished_ = true;
    events_.reset();
    inbox_.clear();
    other_.reset();
  }
  void ping() override {
    if (!open()) return;
    other_->alive_ = alive_ = true;
    other_->deliver_soon();
    deliver_soon();
  }
  bool open() const override { return !closed_ && !finished_; }
  std::size_t unsent_bytes() const override { return unsent_; }
  std::string peer() const override { return peer_; }
  ConnectionCounters counters() const override { return counters_; }

 private:
  struct Message {
    std::string payload;
    bool binary;
  };
  void deliver_soon() {
    if (posted_ || !events_) return;
    posted_ = true;
    loop_.post([self = shared_from_this()] {
      self->posted_ = false;
      self->deliver();
    });
  }
  void deliver() {
    // What comes in meanwhile is delivered in a later turn.
    for (std::size_t n = inbox_.size(); n > 0 && !finished_; --n) {
      const Message message = std::move(inbox_.front());
      inbox_.pop_front();
      ++counters_.messages_in;
      counters_.bytes_in += message.payload.size();
      other_->delivered(message.payload.size());
      const auto events = events_;
      if (events->on_alive) events->on_alive();
      if (events->on_message) events->on_message(message.payload, message.binary);
    }
    if (finished_) return;
    if (alive_) {
      alive_ = false;
      if (const auto events = events_; events->on_alive) events->on_alive();
    }
    if (!inbox_.empty()) return deliver_soon();
    if (!closed_) return;
    finished_ = true;
    const auto events = std::move(events_);
    other_.reset();
    if (events->on_closed) events->on_closed(*closed_);
  }
  void delivered(std::size_t bytes) {
    if (finished_) return;
    unsent_ -= bytes;
    if (!held_back_ || unsent_ >= limits::kOutboxBytes / 2) return;
    held_back_ = false;
    if (const auto events = events_; events && events->on_writable) loop_.post([events] { events->on_writable(); });
  }

  Loop& loop_;
  std::string peer_;
  std::shared_ptr<MemoryConnection> other_;
  std::shared_ptr<ConnectionEvents> events_;
  std::deque<Message> inbox_;
  std::size_t unsent_ = 0;
  std::optional<Error> closed_;
  bool posted_ = false, held_back_ = false, alive_ = false, finished_ = false;
  ConnectionCounters counters_;
};

// The two hold each other until one is closed; letting go of a handle closes it.
ConnectionPtr handle(const std::shared_ptr<MemoryConnection>& connection) {
  return ConnectionPtr(connection.get(), [connection](Connection*) { connection->abandon(); });
}

}  // namespace

std::pair<ConnectionPtr, ConnectionPtr> memory_pair(Loop& loop) {
  const auto a = std::make_shared<MemoryConnection>(loop, "memory:b");
  const auto b = std::make_shared<MemoryConnection>(loop, "memory:a");
  a->join(b);
  b->join(a);
  return {handle(a), handle(b)};
}

}  // namespace grange::net
