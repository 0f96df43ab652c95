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

# Give each target in and below a directory the launcher for custom commands, unless the project has
# given it another one.
function(_termite_launch_custom_commands directory launcher)
  get_property(targets DIRECTORY "${directory}" PROPERTY BUILDSYSTEM_TARGETS)
  get_property(is_set DIRECTORY "${directory}" PROPERTY RULE_LAUNCH_CUSTOM SET)
  foreach(target IN LISTS targets)
    get_property(is_set_for_target TARGET "${target}" PROPERTY RULE_LAUNCH_CUSTOM SET)
    if(NOT is_set AND NOT is_set_for_target)
      set_property(TARGET "${target}" PROPERTY RULE_LAUNCH_CUSTOM "${launcher}")
    endif()
  endforeach()
  get_property(below DIRECTORY "${directory}" PROPERTY SUBDIRECTORIES)
  foreach(each IN LISTS below)
    _termite_launch_custom_commands("${each}" "${launcher}")
  endforeach()
endfunction()

foreach(_termite_kind IN ITEMS compile link custom)
  string(TOUPPER "RULE_LAUNCH_${_termite_kind}" _termite_property)
  get_property(_termite_is_set GLOBAL PROPERTY "${_termite_property}" SET)
  set(_termite_${_termite_kind} "\"${_termite_program}\" ${_termite_${_termite_kind}} --")
  if(_termite_is_set)
    continue()
  elseif(_termite_kind STREQUAL "custom" AND CMAKE_GENERATOR MATCHES "Makefiles" AND NOT CMAKE_VERSION VERSION_LESS 3.19)
    # With the global property, CMake's own targets (edit_cache, test) would get the launcher as well,
    # and the makefiles of all directories would differ from those of plain CMake. Ninja's generator
    # does not know the property of targets. CMake reads the arguments when it calls the function.
    cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}"
      CALL _termite_launch_custom_commands "${CMAKE_SOURCE_DIR}" "${_termite_custom}")
  else()
    set_property(GLOBAL PROPERTY "${_termite_property}" "${_termite_${_termite_kind}}")
  endif()
endforeach()
