# Sourced by the scripts here and, with `this_script` set to their own path, by those of projects: their --help and their
# last words.
this_script=${this_script:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "$0")}

fail() {
    echo "error: $1" >&2
    exit 1
}

# The comment at the top of the script that runs: what it does and takes.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$this_script"; }

# refuse WHAT: end over wrong arguments.
refuse() {
    usage >&2
    echo "error: $1" >&2
    exit 2
}

# show_help ARGS...: print the usage and end, if that is asked for.
show_help() {
    case " $* " in
        *' --help '* | *' -h '*)
            usage
            exit
            ;;
    esac
}
