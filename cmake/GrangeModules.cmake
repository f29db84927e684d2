# One function a module: a static library from the folder's *.cpp, and `<module>_tests` from its *_test.cpp.
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# Several files in one translation unit (presets release, asan, tsan): a clean build in half the time. It takes names in
# anonymous namespaces for redefined or overloaded when two files of a module share them; `dev` reads each file alone.
if(CMAKE_UNITY_BUILD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-Wno-subobject-linkage)  # GCC takes each file but the outermost for a header
endif()

if(GRANGE_SANITIZE)
  add_compile_definitions(_GLIBCXX_ASSERTIONS)  # an empty optional that is read, an index past the end
endif()

add_library(grange_flags INTERFACE)
target_compile_options(grange_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
if(GRANGE_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(GRANGE_SANITIZE STREQUAL "thread")
  # GCC warns that it does not model fences; Asio has one, behind a mutex.
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer -Wno-tsan)
  add_link_options(-fsanitize=thread)
elseif(GRANGE_SANITIZE STREQUAL "fuzzer")
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all)
  add_link_options(-fsanitize=address,undefined -fno-sanitize=vptr)
endif()
add_compile_options(-fstack-protector-strong $<$<CONFIG:Release>:-D_FORTIFY_SOURCE=2>)

set(GRANGE_TEST_LIMIT_S 120)
if(GRANGE_SANITIZE)
  set(GRANGE_TEST_LIMIT_S 900)  # they run up to twenty times slower
endif()

# A precompiled header pays where several translation units read it; `COUNT` files are to be compiled.
function(grange_precompile TARGET COUNT)
  math(EXPR MANY "2 * 0${CMAKE_UNITY_BUILD_BATCH_SIZE}")
  if(ARGN AND (NOT CMAKE_UNITY_BUILD OR COUNT GREATER MANY))
    target_precompile_headers(${TARGET} PRIVATE ${ARGN})
  endif()
endfunction()

# grange_module(NAME LINKS lib... [PCH headers...] [COST n]): tests of a greater cost start earlier, so that no long one is last.
function(grange_module NAME)
  cmake_parse_arguments(ARG "" "COST" "LINKS;PCH;TEST_LINKS" ${ARGN})
  if(NOT ARG_COST)
    set(ARG_COST 1)
  endif()
  file(GLOB_RECURSE SOURCES CONFIGURE_DEPENDS *.cpp)
  set(TESTS ${SOURCES})
  list(FILTER SOURCES EXCLUDE REGEX "_(test|bench)\\.cpp$")
  list(FILTER TESTS INCLUDE REGEX "_test\\.cpp$")
  if(SOURCES)
    add_library(grange_${NAME} STATIC ${SOURCES})
    target_include_directories(grange_${NAME} PUBLIC ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(grange_${NAME} PUBLIC ${ARG_LINKS} PRIVATE grange_flags)
    list(LENGTH SOURCES COUNT)
    grange_precompile(grange_${NAME} ${COUNT} ${ARG_PCH})
  else()
    add_library(grange_${NAME} INTERFACE)
    target_include_directories(grange_${NAME} INTERFACE ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(grange_${NAME} INTERFACE ${ARG_LINKS})
  endif()
  if(GRANGE_TESTS AND TESTS)
    find_package(GTest REQUIRED)
    include(GoogleTest)
    add_executable(${NAME}_tests ${TESTS})
    target_link_libraries(${NAME}_tests PRIVATE grange_${NAME} grange_flags ${ARG_TEST_LINKS} GTest::gtest GTest::gtest_main)
    target_compile_options(${NAME}_tests PRIVATE $<$<CONFIG:Release>:-O1>)  # what they test is compiled at -O2
    list(LENGTH TESTS COUNT)
    if(ARG_PCH)
      grange_precompile(${NAME}_tests ${COUNT} ${ARG_PCH} <gtest/gtest.h>)
    endif()
    gtest_discover_tests(${NAME}_tests DISCOVERY_MODE PRE_TEST TEST_PREFIX "${NAME}." PROPERTIES TIMEOUT ${GRANGE_TEST_LIMIT_S} COST ${ARG_COST})
  endif()
endfunction()
