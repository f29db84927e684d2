#include "cli/app.hpp"

int main(int argc, char** argv) {
  return grange::cli::run(argc, argv);
}
