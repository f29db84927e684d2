#include "ai/fit.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

namespace grange::ai {
namespace {

constexpr Bytes kGpuPlatform = 250 * MiB;
constexpr Bytes kCpuPlatform = 150 * MiB;
constexpr Bytes kMargin = GiB;                  // of each device, for GOOD
constexpr Bytes kMostWeights = Bytes{1} << 56;  // of weights that a service states
constexpr std::uint32_t kStep = 256;
constexpr std::uint32_t kUntold = 131'072;  // the largest context looked at where the model does not say
constexpr std::uint32_t kBlocksTaken = 65'536;

Bytes less(Bytes a, Bytes b) {
  return a > b ? a - b : 0;
}

bool is_good(Bytes need, Bytes free, std::uint64_t devices) {
  return need <= free / 5 * 4 && less(free, need) >= devices * kMargin;
}

class Estimate {
 public:
  Estimate(const ModelFacts& model, KvType kv, const MachineFacts& machine, const FitOptions& options)
      : model_(model), kv_(kv), machine_(machine), options_(options), layers_(model.block_count + 1) {
    for (const GpuFacts& gpu : machine.gpus) {
      if (gpu.total > 0) free_.push_back(std::min(gpu.free, gpu.total));
    }
    std::sort(free_.rbegin(), free_.rend());
  }

  bool machine_known() const { return machine_.ram_total > 0 || machine_.ram_available > 0 || !free_.empty(); }

  // For this context and no other.
  Fit at(std::uint32_t context) const {
    Fit out;
    out.context = context;
    out.layers = layers_;
    out.weights = std::min(model_.weights, kMostWeights);
    out.kv = kv_cache_bytes(model_, context, kv_, options_.parallel);
    if (machine_.unified) {
      one_pool(out);
    } else if (free_.empty()) {
      on_cpu(out);
    } else {
      on_gpus(out);
    }
    return out;
  }

  // The largest context up to `most` that `holds`; 0: none. What fits with a context fits with each smaller one.
  template <class Holds>
  std::uint32_t largest(std::uint32_t most, Holds&& holds) const {
    if (most == 0) return 0;
    if (holds(at(most))) return most;
    std::uint32_t low = 0;  // in steps; holds, or none does
    std::uint32_t high = (most - 1) / kStep + 1;
    while (high - low > 1) {
      const std::uint32_t middle = low + (high - low) / 2;
      (holds(at(middle * kStep)) ? low : high) = middle;
    }
    return low * kStep;
  }

  static bool whole(const Fit& fit) {  // without layers aside
    return fit.verdict != Verdict::fail && (fit.on_cpu || fit.gpu_layers == fit.layers);
  }

 private:
  Bytes compute(const Fit& fit) const { return compute_bytes(model_, fit.context, options_.flash_attention); }

  static void judge(Fit& fit, Bytes overhead, Bytes free, Bytes reserve, std::uint32_t devices) {
    fit.overhead = overhead;
    fit.need = fit.weights + fit.kv + overhead;
    fit.free = free;
    fit.verdict = is_good(fit.need, free, devices)  ? Verdict::good
                  : fit.need <= less(free, reserve) ? Verdict::risk
                                                    : Verdict::fail;
  }

  void one_pool(Fit& fit) const {
    Bytes free = machine_.ram_available;
    if (!free_.empty()) free = free == 0 ? free_.front() : std::min(free, free_.front());
    fit.gpu_layers = layers_;
    fit.gpus_used = 1;
    judge(fit, output_bytes(model_) + compute(fit), free, machine_.gpu_reserve, 1);
  }

  void on_cpu(Fit& fit) const {
    fit.on_cpu = true;
    judge(fit, output_bytes(model_) + compute(fit) + kCpuPlatform, machine_.ram_available, 0, 1);
  }

  Bytes layer_bytes(const Fit& fit) const { return (fit.weights + fit.kv) / layers_ + 1; }

  // Layers that the `count` GPUs with the most free memory hold.
  std::uint64_t room(const Fit& fit, std::size_t count, bool with_output) const {
    std::uint64_t layers = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const Bytes aside =
          machine_.gpu_reserve + kGpuPlatform + compute(fit) + (with_output && i == 0 ? output_bytes(model_) : 0);
      layers += less(free_[i], aside) / layer_bytes(fit);
    }
    return layers;
  }

  void on_gpus(Fit& fit) const {
    // As few GPUs as make it GOOD, else as few as hold it.
    Fit holds;
    Bytes free = 0;
    for (std::uint32_t count = 1; count <= free_.size(); ++count) {
      free += free_[count - 1];
      Fit one = fit;
      one.gpus_used = count;
      one.gpu_layers = layers_;
      judge(one, output_bytes(model_) + count * (compute(fit) + kGpuPlatform), free, count * machine_.gpu_reserve,
            count);
      if (count > 1 && room(fit, count, true) < layers_) one.verdict = Verdict::fail;
      if (one.verdict == Verdict::good) {
        fit = one;
        return;
      }
      if (one.verdict == Verdict::risk && holds.verdict == Verdict::unknown) holds = one;
    }
    if (holds.verdict == Verdict::risk) {
      fit = holds;
      return;
    }
    const std::uint32_t gpus = static_cast<std::uint32_t>(free_.size());
    fit.gpu_layers = static_cast<std::uint32_t>(std::min<std::uint64_t>(room(fit, gpus, false), layers_ - 1));
    fit.gpus_used = fit.gpu_layers > 0 ? gpus : 0;
    fit.on_cpu = fit.gpu_layers == 0;
    const Bytes in_ram =
        layer_bytes(fit) * (layers_ - fit.gpu_layers) + output_bytes(model_) + compute(fit) + kCpuPlatform;
    fit.overhead = output_bytes(model_) + compute(fit) + kCpuPlatform + fit.gpus_used * (compute(fit) + kGpuPlatform);
    fit.need = fit.weights + fit.kv + fit.overhead;
    fit.free = free + machine_.ram_available;
    fit.verdict = in_ram <= machine_.ram_available ? Verdict::risk : Verdict::fail;
  }

  const ModelFacts& model_;
  KvType kv_;
  const MachineFacts& machine_;
  const FitOptions& options_;
  std::uint32_t layers_;
  std::vector<Bytes> free_;  // of each GPU that is used, most first
};

std::string gib(Bytes bytes) {
  char text[32];
  if (bytes < GiB / 10) {
    std::snprintf(text, sizeof text, "%.0f MiB", static_cast<double>(bytes) / static_cast<double>(MiB));
  } else {
    std::snprintf(text, sizeof text, "%.1f GiB", static_cast<double>(bytes) / static_cast<double>(GiB));
  }
  return text;
}

std::string place(const Fit& fit, const MachineFacts& machine) {
  if (machine.unified) return "of the memory that CPU and GPU share";
  if (fit.on_cpu) return machine.gpus.empty() ? "of RAM" : "of RAM and GPU memory";
  if (fit.gpu_layers < fit.layers) return "of GPU memory and RAM";
  return fit.gpus_used > 1 ? "on " + std::to_string(fit.gpus_used) + " GPUs" : "on the GPU";
}

std::string numbers(const Fit& fit, KvType kv, const MachineFacts& machine) {
  return "it needs " + gib(fit.need) + " (weights " + gib(fit.weights) + ", cache " + gib(fit.kv) + " for " +
         std::to_string(fit.context) + " tokens in " + std::string(name(kv)) + ", overhead " + gib(fit.overhead) +
         "), and " + gib(fit.free) + " " + place(fit, machine) + " is free";
}

std::string reason(const Fit& fit, KvType kv, const MachineFacts& machine) {
  const std::string said = numbers(fit, kv, machine);
  switch (fit.verdict) {
    case Verdict::good:
      return (fit.on_cpu ? "Fits, on the CPU: " : "Fits: ") + said + ".";
    case Verdict::risk:
      if (!fit.on_cpu && fit.gpu_layers < fit.layers) {
        return "Only " + std::to_string(fit.gpu_layers) + " of " + std::to_string(fit.layers) +
               " layers fit on the GPU, the others run on the CPU, slowly: " + said + ".";
      }
      if (fit.on_cpu && !machine.gpus.empty())
        return "No layer fits on the GPU, all run on the CPU, slowly: " + said + ".";
      return "Tight: " + said + ".";
    case Verdict::fail:
      return "Does not fit: " + said +
             (fit.max_context > 0 ? "; a context of " + std::to_string(fit.max_context) + " would." : ".");
    case Verdict::unknown:
      break;
  }
  return {};
}

}  // namespace

std::string_view name(Verdict verdict) {
  static constexpr std::array<std::string_view, 4> kNames = {"UNKNOWN", "GOOD", "RISK", "FAIL"};
  return kNames[static_cast<std::size_t>(verdict)];
}

std::uint32_t default_context(const ModelFacts& model, const MachineFacts& machine) {
  Bytes gpu = 0;
  for (const GpuFacts& one : machine.gpus) gpu += one.total;
  if (machine.unified && gpu == 0) gpu = machine.ram_total;
  const std::uint32_t usual = gpu >= 48 * GiB ? 262'144 : gpu >= 24 * GiB ? 32'768 : 4096;
  return model.context_length == 0 ? usual : std::min(usual, model.context_length);
}

Fit fit(const ModelFacts& model, std::uint32_t context, KvType kv, const MachineFacts& machine,
        const FitOptions& options) {
  Fit unknown;
  unknown.context = context;
  unknown.weights = model.weights;
  const Estimate estimate(model, kv, machine, options);
  if (model.weights == 0) {
    unknown.reason = "How large the model is is not known.";
    return unknown;
  }
  if (!estimate.machine_known()) {
    unknown.reason = "How much memory the machine has is not known.";
    return unknown;
  }
  if (model.block_count == 0 || model.block_count > kBlocksTaken ||
      (model.embedding_length == 0 && model.key_length == 0 && !model.recurrent)) {
    unknown.reason = "The model's layers are not known, so neither is the size of its cache; its weights take " +
                     gib(model.weights) + ".";
    return unknown;
  }

  const std::uint32_t most = model.context_length != 0 ? model.context_length : kUntold;
  const bool free_choice = context == 0;
  const std::uint32_t wanted = free_choice ? default_context(model, machine) : context;
  const std::uint32_t taken = model.context_length != 0 ? std::min(wanted, model.context_length) : wanted;
  Fit out = estimate.at(taken);
  bool cut = false;
  if (free_choice && !Estimate::whole(out) && taken > options.min_context) {
    // A service that chooses the context cuts it before it puts layers aside.
    std::uint32_t fits = estimate.largest(taken, Estimate::whole);
    fits = std::max(fits, options.min_context);
    out = estimate.at(fits);
    cut = true;
    if (out.verdict == Verdict::good) out.verdict = Verdict::risk;
  }
  out.good_context = estimate.largest(most, [](const Fit& one) { return one.verdict == Verdict::good; });
  out.max_context = estimate.largest(most, [](const Fit& one) { return one.verdict != Verdict::fail; });
  const bool beyond = wanted > taken;
  if (beyond && out.verdict == Verdict::good) {
    out.verdict = Verdict::risk;
    out.reason = "The model was trained for " + std::to_string(taken) + " tokens, and " + std::to_string(wanted) +
                 " are asked for: " + numbers(out, kv, machine) + ".";
  } else if (cut && out.verdict == Verdict::risk && Estimate::whole(out)) {
    out.reason = "Fits only with a context of " + std::to_string(out.context) + " in place of " +
                 std::to_string(taken) + ": " + numbers(out, kv, machine) + ".";
  } else {
    out.reason = reason(out, kv, machine);
  }
  return out;
}

boost::json::object to_json(const Fit& fit) {
  return {{"verdict", name(fit.verdict)},
          {"context", fit.context},
          {"weights", fit.weights},
          {"kv", fit.kv},
          {"overhead", fit.overhead},
          {"need", fit.need},
          {"free", fit.free},
          {"layers", fit.layers},
          {"gpu_layers", fit.gpu_layers},
          {"gpus_used", fit.gpus_used},
          {"on_cpu", fit.on_cpu},
          {"good_context", fit.good_context},
          {"max_context", fit.max_context},
          {"reason", fit.reason}};
}

}  // namespace grange::ai
