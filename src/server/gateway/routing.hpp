// Which service of which worker a request goes to. Pure: what is known of the services, events and times in, a choice
// out.
#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <list>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "base/units.hpp"
#include "grange/v1/wire.pb.h"

namespace grange::server::gateway {

namespace pb = ::grange::v1;
using ServiceList = google::protobuf::RepeatedPtrField<pb::Service>;

inline constexpr std::size_t kServices = 64;        // of one worker that are looked at
inline constexpr std::size_t kModels = 4096;        // of one service
inline constexpr std::uint32_t kAtOnce = 4096;      // streams of a service that does not say how many it works on
inline constexpr std::uint32_t kEasy = 4;           // of these, before others are thought to be as good
inline constexpr std::size_t kAffinities = 16'384;  // conversations remembered
inline constexpr Millis kAffinityKept{600'000};     // since its last request: caches of prompts do not live longer
inline constexpr std::size_t kAbsent = 1024;        // workers that are away whose models are remembered

enum class Dialect : std::uint8_t { openai, ollama };
enum class Fit : std::uint8_t { good, risk, unknown, fail };

// "x:latest" and "x" are one model.
std::string_view plain_name(std::string_view model);
// Of a model at so many tokens; 0: at those that a request gets which does not say.
Fit fit_of(const pb::Model& model, std::uint32_t context);
bool serves(std::string_view kind);                   // models, to the gateway's clients
bool speaks(std::string_view kind, Dialect dialect);  // by itself: nothing is translated on the way

struct Ask {
  Dialect dialect = Dialect::openai;
  std::string model = {};
  std::uint32_t context = 0;   // tokens that it must have room for; 0: not said
  std::uint64_t affinity = 0;  // the conversation; 0: none
  bool light = false;          // a question about the model: needs no free place
};

using PlaceId = std::uint64_t;
struct Place {
  PlaceId id = 0;
  WorkerNo worker{};
  std::string worker_id;
  pb::Service service;
  WallMs since{};  // the worker was first seen
  std::uint32_t active = 0;
  std::uint64_t used = 0;  // the higher the more recently
  Instant cool_until{};    // it said that it is busy, or that it loads
  bool cools_for_loading = false;
};

struct Choice {
  enum class Why {
    chosen,
    full,          // all that could are busy
    loading,       // the one that could is still loading
    away,          // the service is down, or the workers that have it are not here
    tried,         // only those that the caller does not want
    does_not_fit,  // in no machine, at this context
    unknown,       // nobody has it, or ever had
  };
  Why why = Why::unknown;
  const Place* place = nullptr;  // chosen, or the one that is waited for
  std::uint32_t largest = 0;     // does_not_fit: the context that would, 0: not known
};

class Board {
 public:
  // All that a worker offers now. What its services do at the moment is kept.
  void set(WorkerNo worker, const std::string& worker_id, const ServiceList& services, WallMs since = {});
  void drop(WorkerNo worker);
  // One that is not here, and what it had: it may come back. No effect when it is here.
  void remember(const std::string& worker_id, const ServiceList& services);
  void forget(const std::string& worker_id);  // it will not
  void drain(WorkerNo worker);                // no new ones
  void set_behind(WorkerNo worker, bool on);  // its connection has no room

  Choice choose(const Ask& ask, const std::vector<PlaceId>& but, Instant now) const;
  void took(PlaceId place, const Ask& ask, Instant now);
  void left(PlaceId place, bool light);
  void cool(PlaceId place, Instant until, bool loading);
  bool cooled(Instant since, Instant now) const;  // did one end its rest between these?

  const std::map<PlaceId, Place>& places() const { return places_; }
  std::vector<std::string> names() const;  // of all models that are here, each once, sorted

 private:
  struct Host {
    std::string worker_id = {};
    bool draining = false, behind = false;
    std::map<std::string, PlaceId> places;  // by the service's name
  };
  struct Offer {
    PlaceId place;
    int model;  // its position in the service's list
  };
  struct Bond {
    PlaceId place;
    Instant until;
    std::list<std::uint64_t>::iterator age;
  };
  void index(const Place& place);
  void unindex(const Place& place);
  void absent(const std::string& worker_id, std::set<std::string> models);

  PlaceId last_place_ = 0;
  std::uint64_t uses_ = 0;
  std::map<PlaceId, Place> places_;
  std::unordered_map<WorkerNo, Host> hosts_;
  std::unordered_map<std::string, std::vector<Offer>> offers_;  // by plain name
  std::unordered_map<std::uint64_t, Bond> bonds_;
  std::list<std::uint64_t> ages_;                                  // of bonds, the newest first
  std::unordered_map<std::string, std::set<std::string>> absent_;  // plain names of models, by worker
  std::list<std::string> left_;                                    // these workers, the newest first
  std::unordered_map<std::string, std::size_t> missed_;            // how many absent workers had it, by plain name
};

}  // namespace grange::server::gateway
