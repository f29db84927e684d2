#include "worker/engines/remote_run.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "ai/json.hpp"

namespace grange::worker {

namespace {

constexpr int kWaits = 6;  // in a row, that a service asked for

RemoteEnd stopped() {
  RemoteEnd out;
  out.failure = EngineFailure{"cancelled", "Stopped."};
  return out;
}

}  // namespace

void RemoteRun::request(const Ask& what, const std::string& url, std::function<void(const Answer&)> done) {
  net::ClientRequest request;
  request.method = what.method;
  request.url = url;
  request.headers = what.headers;
  if (same_service(setup_.url, url) && !setup_.key.empty()) request.headers["Authorization"] = "Bearer " + setup_.key;
  if (!what.body.empty()) request.headers["Content-Type"] = "application/json";
  if (what.headers.count("Accept") == 0) request.headers["Accept"] = "application/json";
  request.body = what.body;
  request.idle = setup_.times.silence;
  request.limit = what.limit;
  if (what.on_chunk) {
    request.on_chunk = [weak = weak_from_this(), work = what.on_chunk](std::string_view bytes) {
      if (const auto self = weak.lock(); self && !self->over_) work(bytes);
    };
  }
  const auto at = calls_.emplace(calls_.end());
  *at = setup_.http.send(std::move(request), [weak = weak_from_this(), at, done = std::move(done)](Answer answer) {
    const auto self = weak.lock();
    if (!self || self->over_) return;
    const auto gone = std::move(*at);
    self->calls_.erase(at);
    done(answer);
  });
}

void RemoteRun::pause(bool on) {
  for (const auto& call : calls_) on ? call->pause() : call->resume();
}

void RemoteRun::later(Millis delay, std::function<void()> work) {
  if (later_) setup_.loop.post([old = std::shared_ptr<net::Timer>(std::move(later_))] {});  // we may be in it
  later_ = setup_.loop.after(delay, [weak = weak_from_this(), work = std::move(work)] {
    if (const auto self = weak.lock(); self && !self->over_) work();
  });
}

void RemoteRun::ask(Ask what, std::function<void(const net::ClientResponse&)> done) {
  send(std::make_shared<Ask>(std::move(what)), std::move(done));
}

void RemoteRun::send(const std::shared_ptr<Ask>& what, std::function<void(const net::ClientResponse&)> done) {
  if (over_) return;
  awaiting_ = what->awaited;
  request(*what, setup_.url + what->path, [this, what, done = std::move(done)](const Answer& answer) {
    awaiting_ = false;
    answered(what, done, answer);
  });
}

void RemoteRun::answered(const std::shared_ptr<Ask>& what, const std::function<void(const net::ClientResponse&)>& done,
                         const Answer& answer) {
  if (answer && answer->status / 100 == 2) {
    trouble_since_.reset();
    waits_ = 0;
    return done(*answer);
  }
  if (stopping_) return cancel_there(stopped());
  if (answer) return refused(what, done, *answer);
  // Whether it was done is not known: only what may be done twice is tried again.
  if (!trouble_since_) trouble_since_ = now();
  if (what->once || now() - *trouble_since_ >= setup_.times.lost)
    return fail(unreachable(setup_.name, answer.error(), begun()));
  later(setup_.times.poll_last, [this, what, done] { send(what, done); });
}

void RemoteRun::refused(const std::shared_ptr<Ask>& what, const std::function<void(const net::ClientResponse&)>& done,
                        const net::ClientResponse& answer) {
  const auto header = [&](const char* name) {
    const auto it = answer.headers.find(name);
    return it == answer.headers.end() ? std::string() : it->second;
  };
  const ai::ErrorBody said = ai::read_error(answer.body);
  // Too fast for it. An empty account does not fill by waiting.
  const bool empty = said.code == "insufficient_quota" || said.type == "insufficient_quota" || answer.status == 402;
  const bool again =
      answer.status == 429 || answer.status == 408 || (answer.status >= 500 && (!what->once || answer.status == 503));
  const auto asked = retry_after(answer.headers, setup_.clock.now().wall.ms);
  const bool must_not = header("x-should-retry") == "false" || empty;
  if (!again || must_not || (what->once && answer.status == 503 && !asked)) return fail_by(answer.status, answer.body);
  Millis wait = setup_.times.wait_first * (1 << std::min(waits_, 10));
  if (asked) wait = *asked;
  if (++waits_ > kWaits || wait > setup_.times.wait_at_most) {
    const std::string when =
        asked ? fmt::format(" It asks to be tried again in {:.0f} s.", static_cast<double>(asked->count()) / 1000) : "";
    return fail_by(answer.status, answer.body, when);
  }
  later(wait, [this, what, done] { send(what, done); });
}

void RemoteRun::stop() {
  if (over_ || stopping_) return;
  stopping_ = true;
  if (!awaiting_) return cancel_there(stopped());
  patience_ = setup_.loop.after(setup_.times.cancel, [weak = weak_from_this()] {
    if (const auto self = weak.lock(); self && !self->over_) self->end(stopped());
  });
}

// And ends when that was heard, or after a while.
void RemoteRun::cancel_there(RemoteEnd last) {
  if (over_) return;
  const auto keep = shared_from_this();
  auto what = cancelling();
  if (!what || ending_) return ending_ ? void() : end(std::move(last));
  ending_ = true;
  calls_.clear();
  setup_.loop.post([old = std::shared_ptr<net::Timer>(std::move(later_))] {});  // we may be in it
  setup_.loop.post([old = std::shared_ptr<net::Timer>(std::move(patience_))] {});
  const auto at_last = std::make_shared<RemoteEnd>(std::move(last));
  request(*what, setup_.url + what->path, [this, at_last](const Answer& answer) {
    heard_there_ = answer && cancel_heard(answer->status);
    end(std::move(*at_last));
  });
  patience_ = setup_.loop.after(setup_.times.cancel, [weak = weak_from_this(), at_last] {
    if (const auto self = weak.lock()) self->end(std::move(*at_last));
  });
}

void RemoteRun::fail(EngineFailure why) {
  if (over_ || ending_) return;
  if (stopping_) return cancel_there(stopped());
  why.message = redacted(why.message, setup_.key);
  RemoteEnd failed;
  failed.failure = std::move(why);
  cancel_there(std::move(failed));
}

void RemoteRun::fail_by(int status, std::string_view body, std::string_view more) {
  EngineFailure why = failure_of(ai::classify(kind(), status, body));
  why.message += more;
  fail(std::move(why));
}

void RemoteRun::opened() {
  const auto what = cancelling();
  if (what && heard_.opened) heard_.opened(what->path);
}

void RemoteRun::succeed(RemoteEnd done) {
  end(std::move(done));
}

void RemoteRun::end(RemoteEnd done) {
  if (over_) return;
  const auto keep = shared_from_this();
  over_ = true;
  done.left_open = !heard_there_ && cancelling();
  calls_.clear();
  setup_.loop.post([keep] {});  // we may be in one of its timers
  if (const auto tell = std::exchange(heard_.ended, nullptr)) tell(std::move(done));
}

}  // namespace grange::worker
