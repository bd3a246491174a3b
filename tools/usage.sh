# Sourced by the scripts here: their --help and their last words.
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
    echo "error: $1" >&2
    exit 1
}

# The comment at the top of the script that runs: what it does and takes.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$tools/$(basename "$0")"; }

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
