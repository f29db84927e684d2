// The program: parses the command line, runs the command, and turns what it threw into a sentence and an exit code.
#pragma once

namespace grange::cli {
int run(int argc, char** argv);
}
