#include "worker/engines/comfy_run.hpp"

#include <algorithm>
#include <boost/json/serialize.hpp>

#include "ai/json.hpp"
#include "ai/workflow.hpp"
#include "worker/data_dir.hpp"

namespace grange::worker {

namespace json = boost::json;

namespace {

constexpr Bytes kComfyAnswer = 64 * MiB;  // of a small question: /history holds the whole graph
constexpr Bytes kPicture = 256 * MiB;
constexpr Bytes kPictures = 1 * GiB;  // of one prompt, all of them in memory
constexpr int kMissing = 7;           // looks that find it neither in the queue nor in the history
constexpr Millis kSubmit{60'000};     // it checks the graph first, and may load code for that
constexpr Millis kOpening{3'000};     // for the WebSocket, before it is submitted without one
constexpr Millis kRedialFirst{250}, kRedialLast{5'000};

std::string encoded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (byte >= '0' && byte <= '9') || ((byte | 32) >= 'a' && (byte | 32) <= 'z') || c == '-' ||
                       c == '_' || c == '.' || c == '~';
    if (plain) {
      out += c;
    } else {
      out += '%';
      out += "0123456789ABCDEF"[byte >> 4];
      out += "0123456789ABCDEF"[byte & 15];
    }
  }
  return out;
}

std::string listed(const std::vector<std::string>& names) {
  std::string out;
  for (std::size_t i = 0; i < std::min<std::size_t>(names.size(), 10); ++i) out += (i > 0 ? ", " : "") + names[i];
  if (names.size() > 10) out += " and " + std::to_string(names.size() - 10) + " more";
  return out.empty() ? "none" : out;
}

}  // namespace

std::string new_prompt_id() {
  std::string hex = random_id(16);
  hex[12] = '4';
  hex[16] = "89ab"[static_cast<unsigned char>(hex[16]) & 3];
  return hex.substr(0, 8) + "-" + hex.substr(8, 4) + "-" + hex.substr(12, 4) + "-" + hex.substr(16, 4) + "-" +
         hex.substr(20);
}

ComfyRun::ComfyRun(Setup setup, Heard heard)
    : setup_(std::move(setup)), heard_(std::move(heard)), client_id_("grange-" + random_id(12)) {}

ComfyRun::~ComfyRun() = default;

void ComfyRun::ask(std::string method, const std::string& path, std::string body,
                   std::function<void(const Answer&)> done, Bytes limit) {
  net::ClientRequest request;
  request.method = std::move(method);
  request.url = setup_.url + path;
  if (!body.empty()) request.headers["Content-Type"] = "application/json";
  if (!setup_.key.empty()) request.headers["Authorization"] = "Bearer " + setup_.key;
  request.body = std::move(body);
  request.limit = limit;
  request.idle = std::min(setup_.times.lost, kSubmit);
  const auto at = calls_.emplace(calls_.end());
  *at = setup_.http.send(std::move(request), [weak = weak_from_this(), at, done = std::move(done)](Answer answer) {
    const auto self = weak.lock();
    if (!self) return;
    const auto over = std::move(*at);
    self->calls_.erase(at);
    if (answer) self->word_ = self->now();
    done(answer);
  });
}

void ComfyRun::after(std::unique_ptr<net::Timer>& timer, Millis delay, std::function<void()> work) {
  if (timer) setup_.loop.post([old = std::shared_ptr<net::Timer>(std::move(timer))] {});  // we may be in it
  timer = setup_.loop.after(delay, [weak = weak_from_this(), work = std::move(work)] {
    if (const auto self = weak.lock(); self && self->phase_ != Phase::over) work();
  });
}

void ComfyRun::start() {
  word_ = now();
  dial();
  check();
}

// ---- before it: are the files there?

void ComfyRun::check() {
  std::set<std::string> classes;
  for (const ai::ModelUse& use : ai::models_used(setup_.workflow)) classes.insert(use.klass);
  to_check_ = classes.size();
  for (const std::string& klass : classes) {
    ask(
        "GET", "/object_info/" + encoded(klass), {}, [this, klass](const Answer& answer) { checked(klass, answer); },
        kComfyAnswer);
  }
  after(redial_, kOpening, [this] {
    ready_to_submit_ = true;
    submit();
  });
  submit();
}

// What cannot be asked here the submit says.
void ComfyRun::checked(const std::string& klass, const Answer& answer) {
  if (phase_ != Phase::checking) return;
  --to_check_;
  if (!answer) return fail(unreachable(setup_.name, answer.error(), false));
  if (answer->status == 200) {
    for (const ai::ModelUse& use : ai::models_used(setup_.workflow)) {
      if (use.klass != klass) continue;
      const auto choices = choices_of(answer->body, klass, use.input);
      if (!choices || std::find(choices->begin(), choices->end(), use.name) != choices->end()) continue;
      EngineFailure why;
      why.name = "missing_checkpoint";
      why.message = "ComfyUI \"" + setup_.name + "\" does not have \"" + use.name + "\" in its folder " + use.folder +
                    "; it has " + listed(*choices) + ". Put it there (grange models sync), or choose one of these.";
      return fail(std::move(why));
    }
  }
  submit();
}

// ---- the WebSocket

void ComfyRun::dial() {
  std::map<std::string, std::string> headers;
  if (!setup_.key.empty()) headers["Authorization"] = "Bearer " + setup_.key;
  if (!dialer_) dialer_ = net::websocket_dialer(setup_.loop, setup_.url + "/ws?clientId=" + client_id_, headers);
  ++dials_;
  attempt_ = dialer_->dial([weak = weak_from_this()](Result<net::ConnectionPtr> connection) {
    if (const auto self = weak.lock(); self && self->phase_ != Phase::over) self->dialled(std::move(connection));
  });
}

void ComfyRun::dialled(Result<net::ConnectionPtr> connection) {
  if (connection) {
    dials_ = 0;
    word_ = now();
    socket_ = std::move(*connection);
    net::ConnectionEvents events;
    events.on_message = [weak = weak_from_this()](std::string message, bool binary) {
      if (const auto self = weak.lock()) self->heard(std::move(message), binary);
    };
    events.on_closed = [weak = weak_from_this()](const Error&) {
      const auto self = weak.lock();
      if (!self || self->phase_ == Phase::over) return;
      self->socket_.reset();
      self->redial();
      if (self->phase_ == Phase::watching) self->look_in(Millis{1});
    };
    socket_->set_events(std::move(events));
    if (setup_.previews) socket_->send(R"({"type":"feature_flags","data":{"supports_preview_metadata":true}})", false);
  } else {
    redial();
  }
  if (phase_ == Phase::checking) {
    ready_to_submit_ = true;
    submit();
  }
}

void ComfyRun::redial() {
  if (phase_ == Phase::fetching || phase_ == Phase::cleaning) return;
  Millis wait = kRedialFirst;
  for (int i = 1; i < dials_ && wait < kRedialLast; ++i) wait *= 2;
  after(redial_, std::min(wait, kRedialLast), [this] { dial(); });
}

bool ComfyRun::ours(const ComfyEvent& event) const {
  if (!event.prompt_id.empty()) return event.prompt_id == setup_.prompt_id;
  // A preview without a name comes only to who submitted what runs.
  return running_ && (event.type == ComfyEvent::Type::preview || event.type == ComfyEvent::Type::progress);
}

void ComfyRun::heard(std::string message, bool binary) {
  word_ = now();
  if (phase_ != Phase::watching && phase_ != Phase::submitting) return;
  const ComfyEvent event = read_comfy(message, binary);
  using Type = ComfyEvent::Type;
  if (!ours(event)) {
    if (event.type == Type::status && !running_ && phase_ == Phase::watching) look_in(setup_.times.look_soon);
    return;
  }
  const auto keep = shared_from_this();
  sign_ = now();
  if (!running_ && event.type != Type::other) {
    running_ = true;
    ran_ = now();
  }
  switch (event.type) {
    case Type::cached:
      for (const std::string& node : event.nodes) {
        if (setup_.workflow.contains(node)) cached_.insert(node);
      }
      break;
    case Type::preview:
      if (setup_.previews && heard_.preview) heard_.preview(event);
      break;
    case Type::progress:
      if (heard_.progress) heard_.progress(event);
      break;
    case Type::executing:
      if (!event.node.empty()) {
        if (heard_.progress) heard_.progress(event);
        break;
      }
      [[fallthrough]];
    case Type::succeeded:
    case Type::interrupted:
    case Type::failed:
      told_through_ = true;
      soon_ = setup_.times.look_soon;
      if (phase_ == Phase::watching) look_in(Millis{0});
      break;
    default:
      break;
  }
}

// ---- the prompt itself

void ComfyRun::submit() {
  if (phase_ != Phase::checking || to_check_ > 0 || !ready_to_submit_) return;
  phase_ = Phase::submitting;
  if (!socket_ && !attempt_) dial();
  began_ = sign_ = word_ = now();
  posting_ = sent_ = true;
  const json::object body{{"prompt", setup_.workflow}, {"client_id", client_id_}, {"prompt_id", setup_.prompt_id}};
  ask(
      "POST", "/prompt", json::serialize(body),
      [this](const Answer& answer) {
        posting_ = false;
        submitted(answer);
      },
      kComfyAnswer);
}

void ComfyRun::submitted(const Answer& answer) {
  if (phase_ == Phase::cleaning) return clean_queue();  // it was waited for
  if (!answer) return fail(unreachable(setup_.name, answer.error(), false));
  const auto value = ai::parse_json(answer->body);
  if (answer->status != 200 || !value || !value->is_object()) {
    sent_ = false;  // it was refused
    return fail(failure_of(ai::classify("comfyui", answer->status, answer->body)));
  }
  const json::object& said = value->get_object();
  // An older one names it by itself.
  if (const auto id = ai::text_at(said, "prompt_id"); id && !id->empty()) setup_.prompt_id = std::string(*id);
  // It takes a graph of which only some outputs can be made. Who asked for all is not served by some.
  if (const json::object* wrong = ai::object_at(said, "node_errors"); wrong != nullptr && !wrong->empty())
    return fail(failure_of(ai::classify("comfyui", 400, answer->body)));
  phase_ = Phase::watching;
  look_in(told_through_ ? Millis{0} : setup_.times.look_soon);
  watch_times();
}

// ---- watching it

void ComfyRun::look_in(Millis delay) {
  if (phase_ != Phase::watching || looking_) return;
  after(look_, delay, [this] { look(); });
}

void ComfyRun::look() {
  if (phase_ != Phase::watching || looking_) return;
  looking_ = true;
  ask(
      "GET", "/history/" + encoded(setup_.prompt_id), {},
      [this](const Answer& answer) {
        looking_ = false;
        if (phase_ != Phase::watching) return;
        if (!answer || answer->status != 200)
          return no_answer(answer ? Error{ErrorClass::unavailable, "It answered " + std::to_string(answer->status) +
                                                                       " when asked for the result."}
                                  : answer.error());
        if (auto history = read_history(answer->body, setup_.prompt_id)) return through(std::move(*history));
        look_at_queue();
      },
      kComfyAnswer);
}

// {} may mean: waiting, running, or never heard of.
void ComfyRun::look_at_queue() {
  looking_ = true;
  ask(
      "GET", "/queue", {},
      [this](const Answer& answer) {
        looking_ = false;
        if (phase_ != Phase::watching) return;
        const auto queue = answer && answer->status == 200 ? read_queue(answer->body, setup_.prompt_id) : std::nullopt;
        if (!queue)
          return no_answer(answer ? Error{ErrorClass::unavailable, "Its queue cannot be read."} : answer.error());
        if (queue->place == ComfyPlace::absent) {
          if (++missed_ >= kMissing)
            return fail({"unknown", "ComfyUI \"" + setup_.name + "\" no longer knows of this prompt; it was probably " +
                                        "restarted, or its queue was cleared."});
          // A history may come a little after the end; each look waits twice as long as the one before.
          return look_in(std::max(setup_.times.look_soon, Millis{5}) * (1 << missed_));
        }
        missed_ = 0;
        if (queue->place == ComfyPlace::pending) {
          sign_ = now();  // it waits for others, which is no stall
          if (heard_.queued) heard_.queued(queue->ahead);
        } else if (!running_) {
          running_ = true;
          ran_ = sign_ = now();
        }
        if (told_through_) {
          const Millis next = std::exchange(soon_, std::min(soon_ * 2, setup_.times.look_alone));
          return look_in(next);
        }
        look_in(socket_ ? setup_.times.look : setup_.times.look_alone);
      },
      kComfyAnswer);
}

// One that loads a model may be deaf for a while.
void ComfyRun::no_answer(const Error& error) {
  if (now() - word_ < setup_.times.lost) return look_in(setup_.times.look_alone);
  fail(unreachable(setup_.name, error, true));
}

void ComfyRun::watch_times() {
  const Millis stall = setup_.times.stall;
  after(clock_, std::clamp(stall / 4, Millis{5}, Millis{1'000}), [this, stall] {
    if (phase_ != Phase::watching) return;
    const auto seconds = [](Millis time) { return std::to_string(time.count() / 1000) + " s"; };
    if (now() - sign_ >= stall)
      return fail(
          {"timeout", "ComfyUI \"" + setup_.name + "\" made no progress for " + seconds(stall) +
                          (socket_ ? std::string(". Look at its own log, or allow more with \"stall\".")
                                   : ", as far as its queue and history tell: its WebSocket at /ws, which tells of "
                                     "each step, cannot be reached. Look at it and at its log, or allow more with "
                                     "\"stall\".")});
    if (now() - began_ >= setup_.times.total)
      return fail({"timeout", "The prompt did not end within " + seconds(setup_.times.total) + "."});
    watch_times();
  });
}

// ---- after it

void ComfyRun::through(ComfyHistory history) {
  const Instant at = now();
  end_.wall_seconds = static_cast<double>((at - began_).count()) / 1e6;
  if (ran_) end_.queue_seconds = static_cast<double>((*ran_ - began_).count()) / 1e6;
  end_.exec_seconds = history.seconds;
  for (const std::string& node : history.cached) {
    if (setup_.workflow.contains(node)) cached_.insert(node);
  }
  end_.cached = std::all_of(setup_.workflow.begin(), setup_.workflow.end(),
                            [this](const auto& node) { return cached_.contains(std::string(node.key())); });
  if (!history.error.empty()) return fail(failure_of(ai::classify("comfyui", 0, history.error)));
  if (history.interrupted) return fail({"unknown", "Somebody interrupted it on ComfyUI \"" + setup_.name + "\"."});
  if (!history.ok)
    return fail({"unknown", "ComfyUI \"" + setup_.name + "\" ended it with an error that it does not tell."});
  if (history.files.empty())
    return fail(
        {"unknown", "The workflow made no picture: it needs a node that saves one, such as SaveImage.", true, false});
  phase_ = Phase::fetching;
  files_ = std::move(history.files);
  fetch();
}

void ComfyRun::fetch() {
  if (end_.pictures.size() == files_.size()) return end();
  const ComfyFile file = files_[end_.pictures.size()];
  Bytes held = 0;
  for (const auto& picture : end_.pictures) held += picture.bytes.size();
  if (held >= kPictures)
    return fail({"unknown",
                 "The workflow made more than the " + std::to_string(kPictures / MiB) +
                     " MiB of pictures that one task may have. Let it make fewer, in several tasks.",
                 true, false});
  ask(
      "GET",
      "/view?filename=" + encoded(file.filename) + "&subfolder=" + encoded(file.subfolder) +
          "&type=" + encoded(file.type),
      {},
      [this, file](const Answer& answer) {
        if (phase_ != Phase::fetching) return;
        if (!answer) return fail(unreachable(setup_.name, answer.error(), true));
        if (answer->status != 200 || answer->body.empty())
          return fail({"unknown", "ComfyUI \"" + setup_.name + "\" made " + file.filename + ", but answered " +
                                      std::to_string(answer->status) + " when asked for it."});
        end_.pictures.push_back({file, answer->body});
        fetch();
      },
      std::min(kPicture, kPictures - held));
}

void ComfyRun::fail(EngineFailure why) {
  if (phase_ == Phase::cleaning || phase_ == Phase::over) return;
  end_.failure = std::move(why);
  clean_up();
}

void ComfyRun::stop(EngineFailure why) {
  fail(std::move(why));
}

void ComfyRun::only_clean_up() {
  sent_ = true;
  word_ = now();
  clean_up();
}

// Out of the queue; when it runs, interrupted, and only then: an old ComfyUI ends whatever runs. At last out of the
// history.
void ComfyRun::clean_up() {
  phase_ = Phase::cleaning;
  cleaning_since_ = now();
  end_.pictures.clear();
  if (!sent_) return end();
  after(patience_, setup_.times.clean_up, [this] { end(); });
  if (!posting_) clean_queue();  // else once the submit was answered: it could come after us
}

void ComfyRun::clean_queue() {
  ask(
      "POST", "/queue", json::serialize(json::object{{"delete", json::array{setup_.prompt_id}}}),
      [this](const Answer& answer) {
        if (phase_ != Phase::cleaning) return;
        if (!answer) return after(look_, setup_.times.look_alone, [this] { clean_queue(); });
        ask(
            "GET", "/queue", {},
            [this](const Answer& queue_now) {
              if (phase_ != Phase::cleaning) return;
              const auto queue = queue_now ? read_queue(queue_now->body, setup_.prompt_id) : std::nullopt;
              if (queue && queue->place == ComfyPlace::absent) return clean_history();
              if (!queue || queue->place == ComfyPlace::pending)
                return after(look_, setup_.times.look_soon, [this] { clean_queue(); });
              ask(
                  "POST", "/interrupt", json::serialize(json::object{{"prompt_id", setup_.prompt_id}}),
                  [this](const Answer&) {
                    if (phase_ == Phase::cleaning) after(look_, setup_.times.look_soon, [this] { clean_queue(); });
                  },
                  kComfyAnswer);
            },
            kComfyAnswer);
      },
      kComfyAnswer);
}

void ComfyRun::clean_history() {
  ask(
      "POST", "/history", json::serialize(json::object{{"delete", json::array{setup_.prompt_id}}}),
      [this](const Answer&) {
        if (phase_ == Phase::cleaning) end();
      },
      kComfyAnswer);
}

void ComfyRun::end() {
  if (phase_ == Phase::over) return;
  const auto keep = shared_from_this();
  phase_ = Phase::over;
  calls_.clear();
  attempt_.reset();
  if (const auto socket = std::move(socket_)) socket->close(1000, "done");
  setup_.loop.post([keep] {});
  if (const auto tell = std::exchange(heard_.ended, nullptr)) tell(std::move(end_));
}

}  // namespace grange::worker
