#include "net/http_exchange.hpp"

#include "base/limits.hpp"

namespace grange::net {

namespace {

constexpr Bytes kMostUnsent = 16 * limits::kStreamBytes;  // then its writer did not hold back

void drop(ExchangeState& state) {
  if (state.over || state.dropped) return;
  state.dropped = true;
  if (state.answer == ExchangeState::Answer::none) {
    state.answer = ExchangeState::Answer::whole;
    state.response = HttpResponse::error(
        {ErrorClass::internal, "The server gave no answer to this request. This is a fault of the server."});
  }
  if (state.wake) state.wake();
}

}  // namespace

Exchange::~Exchange() {
  if (loop_.on_thread()) {
    drop(*state_);
    return;
  }
  loop_.post([state = state_] { drop(*state); });
}

void Exchange::wake() {
  if (state_->wake) state_->wake();
}

bool Exchange::begin(ExchangeState::Answer answer, HttpResponse head) {
  if (state_->over || state_->answer != ExchangeState::Answer::none) return false;  // the first answer counts
  state_->answer = answer;
  state_->response = std::move(head);
  if (state_->request.body.empty()) state_->share.reset();  // its handler took it, and is done with it
  return true;
}

void Exchange::respond(HttpResponse response) {
  if (begin(ExchangeState::Answer::whole, std::move(response))) wake();
}

void Exchange::respond_file(HttpResponse head, std::string file, std::uint64_t offset, std::uint64_t length) {
  if (!begin(ExchangeState::Answer::file, std::move(head))) return;
  state_->file = std::move(file);
  state_->offset = offset;
  state_->length = length;
  wake();
}

void Exchange::start_stream(HttpResponse head) {
  if (begin(ExchangeState::Answer::stream, std::move(head))) wake();
}

bool Exchange::write(std::string chunk) {
  if (state_->over || state_->ended || state_->dropped || state_->answer != ExchangeState::Answer::stream) return false;
  if (state_->chunk_bytes > kMostUnsent) {  // cut short: the session closes, and the client sees that it was
    state_->chunks.clear();
    state_->dropped = true;
    wake();
    return false;
  }
  if (!chunk.empty()) {
    state_->chunk_bytes += chunk.size();
    state_->chunks.push_back(std::move(chunk));
    wake();
  }
  if (state_->chunk_bytes <= limits::kStreamBytes) return true;
  state_->held_back = true;
  return false;
}

void Exchange::end_stream() {
  if (state_->dropped) return;
  state_->ended = true;
  wake();
}

void Exchange::on_closed(std::function<void()> gone) {
  if (!state_->over) {
    state_->gone = std::move(gone);
  } else if (gone) {
    loop_.post(std::move(gone));
  }
}

void Exchange::on_writable(std::function<void()> ready) {
  if (!state_->over) state_->writable = std::move(ready);
}

void Exchange::cut(const Error& why) {
  if (state_->over || state_->dropped) return;
  if (state_->answer == ExchangeState::Answer::none) {
    respond(HttpResponse::error(why));
  } else if (state_->answer == ExchangeState::Answer::stream && !state_->ended) {
    state_->chunks.clear();
    state_->dropped = true;
    wake();
  }
  if (auto gone = std::exchange(state_->gone, nullptr)) loop_.post(std::move(gone));
}

void Exchange::read_body_to_file(std::string file, std::uint64_t offset, Bytes limit,
                                 std::function<void(Result<std::uint64_t>)> done) {
  if (state_->over || !state_->body_unread || state_->body_wanted) {
    return done(Error{ErrorClass::unavailable, "The client left before its data was read."});
  }
  state_->body_wanted = true;
  state_->body_file = std::move(file);
  state_->body_offset = offset;
  state_->body_limit = limit;
  state_->body_done = std::move(done);
  wake();
}

}  // namespace grange::net
