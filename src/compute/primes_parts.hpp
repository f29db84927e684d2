// The four ways, each in a file of its own; `count_primes` checks what they are given.
#pragma once

#include <vector>

#include "compute/control.hpp"

namespace grange::compute {

// What is not counted when the control stops is missing; the caller looks at its outcome.
std::uint64_t segmented_sieve(std::uint64_t n, unsigned threads, Control& control);
std::uint64_t simple_sieve(std::uint64_t n, unsigned threads, Control& control);
std::uint64_t trial_division(std::uint64_t n, unsigned threads, Control& control);
std::uint64_t library_sieve(std::uint64_t n, unsigned threads, Control& control);

std::uint64_t square_root(std::uint64_t n);                    // floor
std::vector<std::uint32_t> odd_primes_up_to(std::uint64_t n);  // n below 2^31
std::uint64_t count_bits(const std::uint64_t* words, std::size_t count);
Bytes simple_sieve_bytes(std::uint64_t n);

}  // namespace grange::compute
