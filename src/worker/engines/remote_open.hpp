// What this worker has under way at services that are reached with a key, on disk: after a crash the next worker
// cancels it there, for it costs money and nobody waits for it any more. No key is written.
#pragma once

#include <list>
#include <memory>
#include <set>
#include <string>
#include <tuple>

#include "net/http_client.hpp"
#include "worker/services/services.hpp"

namespace grange::worker {

class RemoteOpen {
 public:
  struct Times {
    Millis look{1'000};  // between looks for a service that is not known yet, or does not answer
    int looks = 120;     // then it is left to the next start
  };
  // Cancels what an earlier one left.
  RemoteOpen(std::string file, net::Loop& loop, net::HttpClient& http, const Services& services);
  RemoteOpen(std::string file, net::Loop& loop, net::HttpClient& http, const Services& services, Times times);
  // `path`: what is asked of the service with POST to cancel it.
  void add(const std::string& service, const std::string& url, const std::string& path);
  void remove(const std::string& service, const std::string& url, const std::string& path);

 private:
  using Entry = std::tuple<std::string, std::string, std::string>;
  void save() const;
  void take_back();
  void cancel(const Entry& entry, const ServiceInfo& service);

  std::string file_;
  net::Loop& loop_;
  net::HttpClient& http_;
  const Services& services_;
  Times times_;
  std::set<Entry> open_, left_;
  std::list<std::unique_ptr<net::HttpClient::Call>> calls_;
  std::unique_ptr<net::Timer> again_;
  int looks_ = 0;
};

}  // namespace grange::worker
