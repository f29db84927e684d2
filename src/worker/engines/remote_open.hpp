// What this worker has under way at services that are reached with a key, on disk: what was not heard to be cancelled,
// and after a crash all of it, is cancelled there, for it costs money and nobody waits for it any more. No key is
// written.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>

#include "base/clock.hpp"
#include "net/http_client.hpp"
#include "worker/services/services.hpp"

namespace grange::worker {

class RemoteOpen {
 public:
  // Cancels what an earlier one left. `look`: between the first tries; later they are rarer, and after a day it is
  // forgotten.
  RemoteOpen(std::string file, net::Loop& loop, net::HttpClient& http, const Services& services, const Clock& clock,
             Millis look);
  // `path`: what is asked of the service with POST to cancel it.
  void add(const std::string& service, const std::string& url, const std::string& path);
  void remove(const std::string& service, const std::string& url, const std::string& path);
  // Its run is over, and it may go on there: it is cancelled until that is heard.
  void leave(const std::string& service, const std::string& url, const std::string& path);

 private:
  using Entry = std::tuple<std::string, std::string, std::string>;
  std::int64_t wall() const { return clock_.now().wall.ms; }
  void save() const;
  void remove(const Entry& entry);
  void drop_oldest();
  void plan(Millis delay);
  void take_back();
  void cancel(const Entry& entry, const ServiceInfo& service);

  std::string file_;
  net::Loop& loop_;
  net::HttpClient& http_;
  const Services& services_;
  const Clock& clock_;
  Millis look_;
  std::map<Entry, std::int64_t> open_;  // since when it is left (ms); 0: its run goes on
  std::set<Entry> left_;                // and not being asked for now
  std::list<std::unique_ptr<net::HttpClient::Call>> calls_;
  std::unique_ptr<net::Timer> again_;
  bool planned_ = false;
  int rounds_ = 0;
};

}  // namespace grange::worker
