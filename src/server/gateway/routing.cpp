#include "server/gateway/routing.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>

#include "base/utf8.hpp"

namespace grange::server::gateway {
namespace {

constexpr std::size_t kModelNameBytes = 256;

bool good_name(const std::string& name) {
  return !name.empty() && name.size() <= kModelNameBytes && is_utf8(name);
}

std::uint32_t capacity(const pb::Service& service) {
  return service.parallel() == 0 ? kAtOnce : std::min(service.parallel(), kAtOnce);
}
std::uint32_t easy(const pb::Service& service) {
  return service.parallel() == 0 ? kEasy : capacity(service);
}

struct Score {
  std::uint32_t crowd;  // how many times over it is as busy as is good for it
  int rank;             // loaded, GOOD, RISK, UNKNOWN
  bool translated;      // it speaks the other dialect
  double load;
  std::uint64_t used;
  auto key() const { return std::tuple(crowd, rank, translated, load, used); }
};

Score score(const Place& place, const pb::Model& model, Fit fit, Dialect dialect) {
  const std::uint32_t room = easy(place.service);
  return {.crowd = place.active / room,
          .rank = model.loaded() ? 0 : 1 + static_cast<int>(fit),
          .translated = !speaks(place.service.kind(), dialect),
          .load = static_cast<double>(place.active) / room,
          .used = place.used};
}

}  // namespace

std::string_view plain_name(std::string_view model) {
  constexpr std::string_view tag = ":latest";
  if (model.size() > tag.size() && model.ends_with(tag)) model.remove_suffix(tag.size());
  return model;
}

Fit fit_of(const pb::Model& model, std::uint32_t context) {
  if (context != 0 && (model.good_context() != 0 || model.max_context() != 0)) {
    if (context <= model.good_context()) return Fit::good;
    if (context <= model.max_context()) return Fit::risk;
    if (model.max_context() != 0) return Fit::fail;
  }
  if (model.fit() == "GOOD") return Fit::good;
  if (model.fit() == "RISK") return Fit::risk;
  // What is in memory has shown that it fits, whatever was estimated.
  if (model.fit() == "FAIL") return model.loaded() && context == 0 ? Fit::risk : Fit::fail;
  return Fit::unknown;
}

bool serves(std::string_view kind) {
  return kind == "ollama" || kind == "llamacpp" || kind == "openai";
}

bool speaks(std::string_view kind, Dialect dialect) {
  return kind == "ollama" || (dialect == Dialect::openai && serves(kind));
}

void Board::index(const Place& place) {
  for (int i = 0; i < place.service.models_size(); ++i)
    offers_[std::string(plain_name(place.service.models(i).name()))].push_back({place.id, i});
}

void Board::unindex(const Place& place) {
  for (const pb::Model& model : place.service.models()) {
    const auto it = offers_.find(std::string(plain_name(model.name())));
    if (it == offers_.end()) continue;
    std::erase_if(it->second, [&](const Offer& offer) { return offer.place == place.id; });
    if (it->second.empty()) offers_.erase(it);
  }
}

void Board::set(WorkerNo worker, const std::string& worker_id, const ServiceList& services, WallMs since) {
  Host& host = hosts_[worker];
  host.worker_id = worker_id;
  forget(worker_id);
  std::map<std::string, PlaceId> before = std::move(host.places);
  host.places.clear();
  for (const pb::Service& service : services) {
    if (host.places.size() >= kServices) break;
    if (!good_name(service.name()) || !serves(service.kind())) continue;
    if (host.places.contains(service.name())) continue;
    PlaceId id = 0;
    if (const auto it = before.find(service.name()); it != before.end()) {
      id = it->second;
      before.erase(it);
      unindex(places_[id]);
    } else {
      id = ++last_place_;
    }
    host.places[service.name()] = id;
    Place& place = places_[id];
    place.id = id;
    place.worker = worker;
    place.worker_id = worker_id;
    place.since = since;
    place.service = service;
    pb::Service& kept = place.service;
    kept.clear_models();
    for (const pb::Model& model : service.models()) {
      if (static_cast<std::size_t>(kept.models_size()) >= kModels) break;
      if (!good_name(model.name()) || model.kind() == "checkpoint") continue;
      pb::Model& one = *kept.add_models();
      one = model;
      one.clear_fit_json();
    }
    index(place);
  }
  for (const auto& [name, id] : before) {
    unindex(places_[id]);
    places_.erase(id);
  }
}

void Board::drop(WorkerNo worker) {
  const auto host = hosts_.find(worker);
  if (host == hosts_.end()) return;
  std::set<std::string> had;
  for (const auto& [name, id] : host->second.places) {
    const auto place = places_.find(id);
    for (const pb::Model& model : place->second.service.models()) had.emplace(plain_name(model.name()));
    unindex(place->second);
    places_.erase(place);
  }
  absent(host->second.worker_id, std::move(had));
  hosts_.erase(host);
}

void Board::remember(const std::string& worker_id, const ServiceList& services) {
  for (const auto& [no, host] : hosts_) {
    if (host.worker_id == worker_id) return;
  }
  std::set<std::string> had;
  for (const pb::Service& service : services) {
    if (!serves(service.kind())) continue;
    for (const pb::Model& model : service.models()) {
      if (good_name(model.name()) && model.kind() != "checkpoint") had.emplace(plain_name(model.name()));
    }
  }
  absent(worker_id, std::move(had));
}

void Board::absent(const std::string& worker_id, std::set<std::string> models) {
  forget(worker_id);
  if (models.empty()) return;
  while (models.size() > kModels) models.erase(std::prev(models.end()));
  for (const std::string& model : models) ++missed_[model];
  absent_[worker_id] = std::move(models);
  left_.push_front(worker_id);
  if (left_.size() > kAbsent) forget(std::string(left_.back()));
}

void Board::forget(const std::string& worker_id) {
  const auto it = absent_.find(worker_id);
  if (it == absent_.end()) return;
  for (const std::string& model : it->second) {
    if (const auto missed = missed_.find(model); --missed->second == 0) missed_.erase(missed);
  }
  absent_.erase(it);
  left_.remove(worker_id);
}

void Board::drain(WorkerNo worker) {
  if (const auto host = hosts_.find(worker); host != hosts_.end()) host->second.draining = true;
}

void Board::set_behind(WorkerNo worker, bool on) {
  if (const auto host = hosts_.find(worker); host != hosts_.end()) host->second.behind = on;
}

Choice Board::choose(const Ask& ask, const std::vector<PlaceId>& but, Instant now) const {
  const std::string name(plain_name(ask.model));
  const auto offers = offers_.find(name);
  if (offers == offers_.end()) {
    return {.why = missed_.contains(name) ? Choice::Why::away : Choice::Why::unknown};
  }
  const Place* best = nullptr;
  std::optional<Score> best_score, bond_score;
  const Place *full = nullptr, *loading = nullptr, *away = nullptr, *bonded = nullptr;
  bool tried = false;
  std::uint32_t largest = 0;
  const auto bond = ask.affinity == 0 ? bonds_.end() : bonds_.find(ask.affinity);
  for (const Offer& offer : offers->second) {
    const Place& place = places_.at(offer.place);
    const pb::Model& model = place.service.models(offer.model);
    const Host& host = hosts_.at(place.worker);
    const Fit fit = fit_of(model, ask.context);
    if (fit == Fit::fail && !ask.light) {
      largest = std::max(largest, model.max_context());
    } else if (std::find(but.begin(), but.end(), place.id) != but.end()) {
      tried = true;
    } else if (place.service.state() == "loading" || (place.cool_until > now && place.cools_for_loading)) {
      loading = &place;
    } else if (host.draining || place.service.state() == "down") {
      away = &place;
    } else if (host.behind || place.cool_until > now || (!ask.light && place.active >= capacity(place.service))) {
      full = &place;
    } else {
      const Score mine = score(place, model, fit, ask.dialect);
      if (bond != bonds_.end() && bond->second.place == place.id && bond->second.until > now) {
        bonded = &place;
        bond_score = mine;
      }
      if (best == nullptr || mine.key() < best_score->key()) {
        best = &place;
        best_score = mine;
      }
    }
  }
  if (best != nullptr) {
    // Where the conversation was before, unless others are better or much less busy.
    if (bonded != nullptr && bond_score->rank <= best_score->rank && bond_score->crowd <= best_score->crowd &&
        bonded->active <= best->active + std::max<std::uint32_t>(2, easy(bonded->service) / 2))
      best = bonded;
    return {.why = Choice::Why::chosen, .place = best};
  }
  if (full != nullptr) return {.why = Choice::Why::full, .place = full};
  if (loading != nullptr) return {.why = Choice::Why::loading, .place = loading};
  if (tried) return {.why = Choice::Why::tried};
  if (away != nullptr) return {.why = Choice::Why::away, .place = away};
  return {.why = Choice::Why::does_not_fit, .largest = largest};
}

void Board::took(PlaceId id, const Ask& ask, Instant now) {
  const auto it = places_.find(id);
  if (it == places_.end()) return;
  if (ask.light) return;
  ++it->second.active;
  it->second.used = ++uses_;
  if (ask.affinity == 0) return;
  if (const auto bond = bonds_.find(ask.affinity); bond != bonds_.end()) {
    bond->second.place = id;
    bond->second.until = now + kAffinityKept;
    ages_.splice(ages_.begin(), ages_, bond->second.age);
    return;
  }
  if (bonds_.size() >= kAffinities) {
    bonds_.erase(ages_.back());
    ages_.pop_back();
  }
  ages_.push_front(ask.affinity);
  bonds_[ask.affinity] = {id, now + kAffinityKept, ages_.begin()};
}

void Board::left(PlaceId id, bool light) {
  const auto it = places_.find(id);
  if (it != places_.end() && !light && it->second.active > 0) --it->second.active;
}

void Board::cool(PlaceId id, Instant until, bool loading) {
  const auto it = places_.find(id);
  if (it == places_.end()) return;
  it->second.cool_until = until;
  it->second.cools_for_loading = loading;
}

bool Board::cooled(Instant since, Instant now) const {
  for (const auto& [id, place] : places_) {
    if (place.cool_until > since && place.cool_until <= now) return true;
  }
  return false;
}

std::vector<std::string> Board::names() const {
  std::set<std::string> all;
  for (const auto& [id, place] : places_) {
    for (const pb::Model& model : place.service.models()) all.insert(model.name());
  }
  return {all.begin(), all.end()};
}

}  // namespace grange::server::gateway
