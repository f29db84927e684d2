// From a job's spec, a task's argument and its parents' results to one call of a model. Pure.
#pragma once

#include <cstdint>

#include "ai/llm_request.hpp"
#include "wire/frames.hpp"
#include "worker/engines/task_input.hpp"

namespace grange::worker {

// The argument: a text is the prompt, or stands for "{}" in the spec's; a list of messages, or several messages, are
// the conversation; an object says {prompt | messages, system, options} in place of the spec's. With no argument the
// parents' results stand in for it: of the result of an llm task its text. "{index}" is the task's number.
Result<ai::LlmCall> read_llm_task(const pb::LlmSpec& spec, std::uint32_t index, const TaskInput& input);

}  // namespace grange::worker
