// Ctrl-C. By default it ends the command with 130; a command that has something to undo counts it instead, and a second
// one ends at once.
#pragma once

namespace grange::cli {

void interrupts_end_the_program();
void count_interrupts();
int interrupts();

}  // namespace grange::cli
