#include "worker/services/fits.hpp"

#include <algorithm>
#include <boost/json/serialize.hpp>

namespace grange::worker {

namespace {

void write(pb::Model& model, const ai::Fit& fit) {
  model.set_fit(std::string(ai::name(fit.verdict)));
  model.set_good_context(fit.good_context);
  model.set_max_context(fit.max_context);
  model.set_fit_json(boost::json::serialize(ai::to_json(fit)));
}

// It runs, so there is nothing to estimate: its server was started with this context, and keeps it.
ai::Fit proven(const pb::Model& model) {
  ai::Fit fit;
  fit.verdict = ai::Verdict::good;
  fit.context = fit.good_context = fit.max_context = model.max_context();
  fit.weights = fit.need = model.bytes();
  fit.reason = "It is loaded, and its server was started with a context of " + std::to_string(fit.context) + " tokens.";
  return fit;
}

// What a model holds comes free when it is loaded anew.
ai::MachineFacts with_credit(ai::MachineFacts machine, const pb::Model& model) {
  if (!model.loaded()) return machine;
  Bytes gpu = model.gpu_bytes();
  for (ai::GpuFacts& one : machine.gpus) {
    const Bytes back = std::min(gpu, one.total - std::min(one.total, one.free));
    one.free += back;
    gpu -= back;
  }
  machine.ram_available =
      std::min(machine.ram_total, machine.ram_available + (model.loaded_bytes() - model.gpu_bytes()));
  return machine;
}

}  // namespace

void judge(pb::Service& service, const FactsCache& facts, const ai::MachineFacts& machine) {
  for (pb::Model& model : *service.mutable_models()) {
    if (model.loaded() && model.max_context() > 0) {
      write(model, proven(model));
      continue;
    }
    const auto it = facts.find(facts_key(model));
    if (it == facts.end()) {
      model.set_fit(std::string(ai::name(ai::Verdict::unknown)));
      continue;
    }
    if (model.context() == 0) model.set_context(it->second.context_length);
    if (model.quantization().empty()) model.set_quantization(it->second.quantization);
    if (model.family().empty()) model.set_family(it->second.architecture);
    write(model, ai::fit(it->second, 0, ai::KvType::f16, with_credit(machine, model)));
  }
}

}  // namespace grange::worker
