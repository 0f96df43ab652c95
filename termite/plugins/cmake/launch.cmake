# termite-cmake has every project() of a build include this: it puts the launcher in front of what compiles, links and generates.
# What it says beside the command are notes for termite's cmake plugin. try_compile knows nothing of it: checks run here, at once.
include_guard(GLOBAL)

# Other commands would rebuild everything, so a build directory that was configured without termite keeps what it has;
# `termite-cmake --build` serves it all the same. (CMAKE_CACHEFILE_DIR appears when the first configuration ends.)
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
    set_property(GLOBAL PROPERTY "${_termite_property}" "\"${TERMITE_PROGRAM}\" ${_termite_${_termite_kind}} --")
  endif()
endforeach()
