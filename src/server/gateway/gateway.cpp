#include "server/gateway/gateway.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>

#include "server/alerts/alert_desk.hpp"
#include "server/api/rest.hpp"
#include "server/gateway/stream.hpp"
#include "server/text.hpp"
#include "server/worker_hub.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server::gateway {
namespace {

constexpr std::size_t kLookAhead = 8;  // that wait for one model: the first may need more than the second
constexpr std::size_t kFirstSeen = 65'536;
constexpr Micros kAgain{1'000'000};  // a kept connection that had ended fails at once; later it was something else

double ms(Micros time) {
  return static_cast<double>(time.count()) / 1000;
}

bool waits(const Fault& fault) {
  return fault.code == "model_loading" || fault.code == "busy";
}

std::string header(const net::HttpRequest& request, const std::string& name) {
  const auto it = request.headers.find(name);
  return it == request.headers.end() ? std::string() : it->second;
}

bool may_be_id(const std::string& text) {
  return !text.empty() && text.size() <= 128 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 127; });
}

// "Prefer: wait=10"
Millis wait_of(const std::string& prefer, Millis most) {
  const auto at = prefer.find("wait=");
  if (at == std::string::npos) return most;
  const auto digits = prefer.substr(at + 5, prefer.find_first_not_of("0123456789", at + 5) - at - 5);
  const auto seconds = to_number(digits);
  return seconds ? std::min(most, Millis{static_cast<std::int64_t>(std::min<std::uint64_t>(*seconds, 86'400)) * 1000})
                 : most;
}

}  // namespace

Gateway::Gateway(Services& services, Limits limits) : s_(services), limits_(limits) {}
Gateway::~Gateway() = default;

void Gateway::serve(const net::HttpExchangePtr& exchange, const Principal& who, const Passed& route) {
  net::HttpRequest& request = exchange->request();
  auto made = std::make_unique<Stream>();
  Stream& stream = *made;
  stream.id = ++last_stream_;
  stream.exchange = exchange;
  stream.route = &route;
  stream.arrived = now();
  stream.deadline = stream.arrived + wait_of(header(request, "prefer"), limits_.wait);
  stream.record.at = s_.clock.now().wall;
  stream.record.principal = who.name;
  stream.record.path = route.pattern;
  stream.record.request_id = header(request, "x-request-id");
  if (!may_be_id(stream.record.request_id))
    stream.record.request_id = fmt::format("req_{:x}_{:x}", s_.started.us, stream.id);
  stream.asked.ask.dialect = route.dialect;
  streams_[stream.id] = std::move(made);

  std::string session = header(request, "x-grange-session");
  if (session.empty()) session = header(request, "x-session-id");
  if (stopping_ || s_.stopping)
    return refuse(stream, {503, "server_error", "stopping", "The server is stopping; ask again in a moment.", 2});
  if (request.body.size() > kRequestBody) {
    return refuse(stream, {413, "invalid_request_error", "too_large",
                           fmt::format("A request to a model may have {} MiB.", kRequestBody / MiB)});
  }
  auto asked = read_ask(route, request.body, session);
  if (!asked) return refuse(stream, {400, "invalid_request_error", "invalid_request", asked.error().message});
  stream.asked = std::move(*asked);
  stream.record.model = stream.asked.ask.model;
  stream.body = std::move(request.body);
  stream.headers = headers_up(request.headers);

  const std::weak_ptr<int> alive = alive_;
  const auto find = [this, alive, id = stream.id]() -> Stream* {
    if (!alive.lock()) return nullptr;
    const auto it = streams_.find(id);
    return it == streams_.end() ? nullptr : it->second.get();
  };
  exchange->on_closed([this, find] {
    if (Stream* one = find()) finish(*one, End::cancelled, nullptr);
  });
  exchange->on_writable([this, find] {
    Stream* one = find();
    if (one == nullptr) return;
    one->held_back = false;
    grant(*one);
  });
  place(stream);
}

void Gateway::place(Stream& stream) {
  const Choice choice = board_.choose(stream.asked.ask, stream.tried, now());
  switch (choice.why) {
    case Choice::Why::chosen:
      return open(stream, *choice.place);
    case Choice::Why::full:
    case Choice::Why::loading:
    case Choice::Why::away:
      return wait(stream, choice);
    default:
      return refuse(stream, no_place(stream, choice));
  }
}

void Gateway::open(Stream& stream, const Place& chosen) {
  stream.place = chosen.id;
  stream.worker = chosen.worker;
  stream.kind = chosen.service.kind();
  stream.opened = now();
  stream.answer = {};
  collects(stream, 0);
  stream.refusal.reset();
  stream.allowed = kCredit;
  stream.taken = 0;
  if (++stream.record.tries == 1) stream.record.waited_ms = ms(stream.opened - stream.arrived);
  stream.record.worker = chosen.worker_id;
  stream.record.service = chosen.service.name();
  stream.translated.reset();
  std::string path(stream.route->upstream), other_body;
  if (!speaks(stream.kind, stream.route->dialect) && !translate(stream, chosen, path, other_body)) return;
  pb::Relay relay;
  stream.relay = ++last_relay_;
  relays_[stream.relay] = &stream;
  pb::RelayOpen& open = *relay.mutable_open();
  open.set_service(chosen.service.name());
  open.set_method("POST");
  open.set_path(path);
  for (const auto& [name, value] : stream.headers) {
    pb::RelayHeader& one = *open.add_headers();
    one.set_name(name);
    one.set_value(value);
  }
  pb::RelayHeader& id = *open.add_headers();
  id.set_name("x-request-id");
  id.set_value(stream.record.request_id);
  open.set_credit_bytes(kCredit);
  open.set_idle_ms(static_cast<std::uint32_t>(limits_.idle.count()));
  std::string& body = stream.translated ? other_body : stream.body;
  open.mutable_body()->swap(body);  // it may be needed once more
  board_.took(chosen.id, stream.asked.ask, stream.opened);
  send(stream, relay);
  open.mutable_body()->swap(body);
}

// For a service that does not speak the client's dialect. False: the request was answered, and is no more.
bool Gateway::translate(Stream& stream, const Place& place, std::string& path, std::string& body) {
  const std::string asked(plain_name(stream.asked.ask.model));
  const auto& models = place.service.models();
  const auto model =
      std::find_if(models.begin(), models.end(), [&](const pb::Model& one) { return plain_name(one.name()) == asked; });
  auto call = read_ollama(*stream.route, stream.body);
  if (!call || model == models.end()) {
    refuse(stream, {400, "invalid_request_error", "invalid_request",
                    call ? "The model is not there any more." : call.error().message});
    return false;
  }
  const WallMs wall = s_.clock.now().wall;
  if (call->kind == OllamaCall::Kind::show) {
    answer_here(stream, "application/json", show_answer(*model, place.since));
    return false;
  }
  if (call->loads) {
    answer_here(stream, call->call.stream ? "application/x-ndjson" : "application/json",
                loaded_answer(*call, stream.asked.ask.model, wall));
    return false;
  }
  ai::LlmHttp http = asked_of(*call, stream.kind, model->name());
  path = std::move(http.path);
  body = std::move(http.body);
  stream.translated =
      std::make_unique<OllamaAnswer>(*call, stream.kind, stream.asked.ask.model, http.stream, Micros{stream.opened.us});
  return true;
}

// What can be said without asking the service.
void Gateway::answer_here(Stream& stream, std::string_view type, std::string body) {
  auto headers = answer_headers(stream);
  headers["Content-Type"] = std::string(type);
  stream.record.status = 200;
  stream.record.bytes += body.size();
  stream.exchange->respond({.status = 200, .headers = std::move(headers), .body = std::move(body)});
  finish(stream, End::completed, nullptr);
}

bool Gateway::send(const Stream& stream, pb::Relay& relay) {
  WorkerChannel* channel = s_.workers->find(stream.worker);
  if (channel == nullptr) return false;
  relay.set_stream(stream.relay);
  const bool room = channel->relay(relay);
  if (!room) board_.set_behind(stream.worker, true);
  return room;
}

void Gateway::wait(Stream& stream, const Choice& why) {
  const Instant at = now();
  const auto until = [&] {
    return why.why == Choice::Why::away ? std::min(stream.deadline, at + limits_.wait_away) : stream.deadline;
  };
  const std::string key =
      (stream.route->dialect == Dialect::openai ? "1" : "2") + std::string(plain_name(stream.asked.ask.model));
  const auto others = waiting_.find(key);
  const bool of_model = others != waiting_.end() && others->second.size() >= limits_.waiting_per_model;
  const auto mine = waiting_of_.find(stream.record.principal);
  const bool of_one = mine != waiting_of_.end() && mine->second >= limits_.waiting_per_principal;
  if (of_model || of_one || waiting_count_ >= limits_.waiting) {
    const std::size_t most = of_model ? limits_.waiting_per_model
                             : of_one ? limits_.waiting_per_principal
                                      : limits_.waiting;
    return refuse(stream, {429, "rate_limit_error", "rate_limit_exceeded",
                           fmt::format("{} requests{} wait already{}; try again in a moment.", most,
                                       of_one && !of_model ? " of yours" : "", of_model ? " for this model" : ""),
                           2});
  }
  stream.queue = key;
  stream.waits_for = why.why;
  stream.wait_until = until();
  waiting_[key].push_back(stream.id);
  ++waiting_count_;
  ++waiting_of_[stream.record.principal];
  if (stream.wait_until <= at) wait_over(stream);
}

void Gateway::stop_waiting(const Stream& stream) {
  const auto queue = waiting_.find(stream.queue);
  if (queue == waiting_.end()) return;
  const std::size_t gone = std::erase(queue->second, stream.id);
  waiting_count_ -= gone;
  if (const auto mine = waiting_of_.find(stream.record.principal); mine != waiting_of_.end()) {
    mine->second -= std::min(mine->second, gone);
    if (mine->second == 0) waiting_of_.erase(mine);
  }
  if (queue->second.empty()) waiting_.erase(queue);
}

// Somebody may have room now.
void Gateway::pump() {
  if (waiting_count_ == 0) return;
  std::vector<std::pair<StreamId, std::string>> heads;
  for (const auto& [key, queue] : waiting_) heads.emplace_back(queue.front(), key);
  std::sort(heads.begin(), heads.end());
  const Instant at = now();
  for (const auto& [first, key] : heads) {
    std::size_t passed_over = 0;
    for (;;) {
      const auto queue = waiting_.find(key);
      if (queue == waiting_.end() || passed_over >= std::min(queue->second.size(), kLookAhead)) break;
      Stream& stream = *streams_.at(queue->second[passed_over]);
      const Choice choice = board_.choose(stream.asked.ask, stream.tried, at);
      if (choice.why == Choice::Why::chosen) {
        stop_waiting(stream);
        stream.queue.clear();
        open(stream, *choice.place);
        continue;
      }
      ++passed_over;
      if (choice.why == std::exchange(stream.waits_for, choice.why)) continue;
      const bool hope = choice.why == Choice::Why::full || choice.why == Choice::Why::loading;
      stream.wait_until = hope ? stream.deadline : std::min(stream.deadline, at + limits_.wait_away);
    }
  }
}

void Gateway::leave_place(Stream& stream, bool cancel) {
  if (stream.relay == 0) return;
  if (cancel) {
    pb::Relay relay;
    relay.mutable_cancel();
    send(stream, relay);
  }
  relays_.erase(stream.relay);
  board_.left(stream.place, stream.asked.ask.light);
  stream.relay = 0;
}

// Nothing has gone out: another service may do better, or this one a little later.
void Gateway::try_elsewhere(Stream& stream, Fault fault) {
  const PlaceId failed = stream.place;
  leave_place(stream, true);
  stream.answer = {};
  collects(stream, 0);
  const bool waitable = waits(fault);
  stream.fault = std::move(fault);
  if (!waitable) {
    stream.tried.push_back(failed);
    ++stream.failures;
  }
  if (stream.failures < kTries) {
    Choice choice = board_.choose(stream.asked.ask, stream.tried, now());
    if (choice.why != Choice::Why::chosen && !stream.again && stream.fault->code == "upstream_unreachable" &&
        now() - stream.opened < kAgain) {
      stream.again = true;
      stream.tried.pop_back();
      choice = board_.choose(stream.asked.ask, stream.tried, now());
    }
    if (choice.why == Choice::Why::chosen) {
      open(stream, *choice.place);
      return pump();
    }
    if (choice.why == Choice::Why::full || choice.why == Choice::Why::loading || choice.why == Choice::Why::away) {
      wait(stream, choice);
      return pump();
    }
  }
  wait_over(stream);
}

// No service will take it any more: the best answer there is.
void Gateway::wait_over(Stream& stream) {
  if (stream.refusal && stream.fault && !waits(*stream.fault)) {
    stream.answer = std::move(*stream.refusal);
    return answered_whole(stream);
  }
  if (stream.fault && !waits(*stream.fault)) return refuse(stream, *stream.fault);
  Choice choice = board_.choose(stream.asked.ask, stream.tried, now());
  if (choice.why == Choice::Why::chosen) choice.why = Choice::Why::full;
  refuse(stream, no_place(stream, choice));
}

Fault Gateway::no_place(const Stream& stream, const Choice& choice) const {
  const Ask& ask = stream.asked.ask;
  const double waited = ms(now() - stream.arrived);
  switch (choice.why) {
    case Choice::Why::loading: {
      const std::string service = choice.place->service.name(), worker = choice.place->worker_id;
      Fault fault{503, "model_loading", "model_loading",
                  fmt::format("\"{}\" is loading on {} ({}); ask again in a few seconds.", ask.model, worker, service),
                  5};
      boost::json::object how{{"state", "loading"}};
      if (stream.fault && !stream.fault->loading.empty()) {  // the service said how far it is
        if (auto said = wire::parse_json(stream.fault->loading); said && said->is_object()) how = said->get_object();
      }
      how["worker"] = worker;
      how["service"] = service;
      how["waited_ms"] = waited;
      fault.loading = boost::json::serialize(how);
      return fault;
    }
    case Choice::Why::full:
    case Choice::Why::chosen:
    case Choice::Why::tried:
      return {503, "server_error", "busy",
              fmt::format("All services with \"{}\" were busy for {:.1f} s; try again in a moment.", ask.model,
                          waited / 1000),
              2};
    case Choice::Why::away:
      return {
          503, "server_error", "away",
          fmt::format("The service with \"{}\" is down, or the workers that have it are away; {:.1f} s were waited. "
                      "See: grange models ls",
                      ask.model, waited / 1000),
          10};
    case Choice::Why::does_not_fit:
      return {400, "invalid_request_error", "context_length_exceeded",
              choice.largest == 0
                  ? fmt::format("\"{}\" fits no machine here. See: grange models fit {}", ask.model, ask.model)
                  : fmt::format("\"{}\" fits no machine here with a context of {}; the largest that does is {}.",
                                ask.model, ask.context, choice.largest)};
    case Choice::Why::unknown:
      break;
  }
  const auto names = board_.names();
  const std::vector<std::string_view> views(names.begin(), names.end());
  const std::string_view near = nearest(ask.model, views);
  std::string hint = " No service offers a model now: see grange workers.";
  if (!near.empty()) {
    hint = fmt::format(" Did you mean \"{}\"?", near);
  } else if (!names.empty()) {
    hint = " There are:";
    for (std::size_t i = 0; i < std::min<std::size_t>(names.size(), 8); ++i)
      hint += fmt::format("{} \"{}\"", i == 0 ? "" : ",", names[i]);
    hint += names.size() > 8 ? ", and more." : ".";
  }
  return {404, "invalid_request_error", "model_not_found", fmt::format("model \"{}\" not found.{}", ask.model, hint)};
}

void Gateway::refuse(Stream& stream, const Fault& fault) {
  auto headers = answer_headers(stream);
  headers["Content-Type"] = "application/json";
  if (fault.retry_after != 0) headers["Retry-After"] = std::to_string(fault.retry_after);
  stream.record.status = fault.status;
  stream.exchange->respond(
      {.status = fault.status, .headers = std::move(headers), .body = fault_body(stream.route->dialect, fault)});
  finish(stream, stream.record.tries == 0 ? End::refused : End::failed, &fault);
}

// The stream is no more after this.
void Gateway::finish(Stream& stream, End end, const Fault* fault) {
  if (!stream.queue.empty()) stop_waiting(stream);
  leave_place(stream, true);
  collects(stream, 0);
  if (stream.started) stream.record.tokens = stream.tail.counts();
  stream.record.end = end;
  if (fault != nullptr) stream.record.code = fault->code;
  stream.record.total_ms = ms(now() - stream.arrived);
  meter_.add(std::move(stream.record));
  streams_.erase(stream.id);
  pump();
}

void Gateway::offers(WorkerNo worker, const std::string& worker_id, const ServiceList& services) {
  WallMs since = s_.clock.now().wall;
  if (const auto it = first_seen_.find(worker_id); it != first_seen_.end()) {
    since = it->second;
  } else if (first_seen_.size() < kFirstSeen) {
    first_seen_[worker_id] = since;
  }
  if (s_.alerts != nullptr) s_.alerts->offered(worker_id, services);
  board_.set(worker, worker_id, services, since);
  pump();
}

void Gateway::remember(const std::vector<Known>& workers) {
  std::vector<const Known*> order;
  for (const Known& one : workers) order.push_back(&one);
  std::sort(order.begin(), order.end(),
            [](const Known* a, const Known* b) { return a->last_seen.ms < b->last_seen.ms; });
  for (const Known* one : order) {
    if (first_seen_.size() < kFirstSeen) first_seen_[one->worker_id] = one->first_seen;
    pb::Manifest manifest;
    if (manifest.ParseFromString(one->manifest)) board_.remember(one->worker_id, manifest.services());
  }
}

void Gateway::forget(const std::string& worker_id) {
  board_.forget(worker_id);
  first_seen_.erase(worker_id);
}

void Gateway::drains(WorkerNo worker) {
  board_.drain(worker);
}

void Gateway::writable(WorkerNo worker) {
  board_.set_behind(worker, false);
  pump();
}

void Gateway::gone(WorkerNo worker) {
  board_.drop(worker);
  logs_over({ErrorClass::unavailable, "The worker was lost before it had sent the log."},
            [worker](const LogAsked& one) { return one.worker == worker; });
  std::vector<StreamId> lost;
  for (const auto& [relay, stream] : relays_) {
    if (stream->worker == worker) lost.push_back(stream->id);
  }
  std::sort(lost.begin(), lost.end());
  for (const StreamId id : lost) {
    const auto it = streams_.find(id);
    if (it == streams_.end() || it->second->relay == 0 || it->second->worker != worker) continue;
    leave_place(*it->second, false);
    Fault fault{502, "server_error", "worker_lost",
                fmt::format("The worker {} that answered was lost.", it->second->record.worker)};
    broken(*it->second, std::move(fault));
  }
}

void Gateway::tick(Now at) {
  const Instant before = std::exchange(looked_, at.mono);
  if (!logs_.empty())
    logs_over({ErrorClass::timeout, "The worker did not send the log in time."},
              [&](const LogAsked& one) { return one.until <= at.mono; });
  if (waiting_count_ == 0) return;
  if (board_.cooled(before, at.mono)) pump();
  std::vector<StreamId> over;
  for (const auto& [key, queue] : waiting_) {
    for (const StreamId id : queue) {
      if (streams_.at(id)->wait_until <= at.mono) over.push_back(id);
    }
  }
  for (const StreamId id : over) {
    const auto it = streams_.find(id);
    if (it != streams_.end() && !it->second->queue.empty()) wait_over(*it->second);
  }
}

void Gateway::stop() {
  stopping_ = true;
  logs_over({ErrorClass::unavailable, "The server is stopping; ask again in a moment."},
            [](const LogAsked&) { return true; });
  const Fault fault{503, "server_error", "stopping", "The server is stopping; ask again in a moment.", 2};
  std::vector<StreamId> all;
  for (const auto& [id, stream] : streams_) all.push_back(id);
  for (const StreamId id : all) {
    const auto it = streams_.find(id);
    if (it == streams_.end()) continue;
    it->second->started ? broken(*it->second, fault) : refuse(*it->second, fault);
  }
}

boost::json::object Gateway::figures() const {
  boost::json::object out{{"active", streams_.size() - waiting_count_}, {"waiting", waiting_count_}};
  for (auto& [field, value] : meter_.totals()) out[field] = value;
  out["limits"] = boost::json::object{{"waiting", limits_.waiting},
                                      {"waiting_per_model", limits_.waiting_per_model},
                                      {"waiting_per_principal", limits_.waiting_per_principal},
                                      {"wait_ms", limits_.wait.count()},
                                      {"tries", kTries}};
  boost::json::array services;
  for (const auto& [id, place] : board_.places()) {
    services.push_back(boost::json::object{{"worker_id", place.worker_id},
                                           {"service", place.service.name()},
                                           {"kind", place.service.kind()},
                                           {"state", place.service.state()},
                                           {"active", place.active},
                                           {"parallel", place.service.parallel()},
                                           {"models", place.service.models_size()}});
  }
  out["services"] = std::move(services);
  out["usage_since"] = iso_time(s_.started_at);
  out["usage"] = meter_.by_key();
  out["usage_by_principal"] = meter_.by_principal();
  out["usage_by_model"] = meter_.by_model();
  out["recent"] = meter_.recent();
  return out;
}

}  // namespace grange::server::gateway
