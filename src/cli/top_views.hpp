// One job, one worker.
#pragma once

#include "cli/top_model.hpp"

namespace grange::cli::top {

// From line `y` on, down to the one before the last.
void draw_job(Frame& frame, const State& state, int y, Clock now);
void draw_worker(Frame& frame, const State& state, int y, Clock now);

}  // namespace grange::cli::top
