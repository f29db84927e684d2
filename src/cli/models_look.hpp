// What `grange models` shows, and of which workers.
#pragma once

#include <string>
#include <vector>

#include "cli/context.hpp"
#include "cli/rest.hpp"

namespace grange::cli::models {

struct ModelsOptions {
  std::string worker, model, url, sha256, folder, service;
  std::vector<std::string> models, workers;
  std::uint32_t context = 0;
  bool wait = false;
};

struct Machine {
  std::string id, name;
  json::array services;
};
std::string shown_name(const Machine& machine);
json::array models_of(const json::value& service);
// Those of these ids or names; none named: all that are connected.
std::vector<Machine> machines(Rest& rest, const std::vector<std::string>& wanted);

std::string size_of(std::int64_t bytes);       // "-" when it is not known
std::string usable(const json::value& model);  // what fits well, and how far it goes: "8,192 (at most 32,768)", or "?"

int list_models(Context& context, const ModelsOptions& options);
int show_fit(Context& context, const ModelsOptions& options);

}  // namespace grange::cli::models
