# termite-cmake makes every project() of a build include this file. It puts the launcher in front of
# the commands that compile, link and generate. The words between the launcher and the command are
# notes for termite's cmake plugin. try_compile does not use the launcher: its checks run locally.
include_guard(GLOBAL)

# Each variable of the command line must be read, even if nothing uses it below. CMake otherwise warns
# of an unused one.
set(_termite_program "${TERMITE_PROGRAM}")

# In a build directory that was configured without termite, the commands stay as they are: changed
# commands would rebuild everything. `termite-cmake --build` works there too. (CMAKE_CACHEFILE_DIR
# is defined once the first configuration has ended.)
if(DEFINED CACHE{CMAKE_CACHEFILE_DIR} AND NOT TERMITE_LAUNCHES)
  return()
endif()
set(TERMITE_LAUNCHES ON CACHE INTERNAL "The commands of this build directory begin with termite")

set(_termite_compile "--cmake=compile --language=<LANGUAGE> --target=<TARGET_NAME> --object=<OBJECT>")
set(_termite_link "--cmake=link --language=<LANGUAGE> --target=<TARGET_NAME> --output=<TARGET>")
set(_termite_custom "--cmake=custom --output=<OUTPUT>")
foreach(_termite_kind IN ITEMS compile link custom)
  string(TOUPPER "RULE_LAUNCH_${_termite_kind}" _termite_property)
  get_property(_termite_is_set GLOBAL PROPERTY "${_termite_property}" SET)
  if(NOT _termite_is_set)
    set_property(GLOBAL PROPERTY "${_termite_property}" "\"${_termite_program}\" ${_termite_${_termite_kind}} --")
  endif()
endforeach()
