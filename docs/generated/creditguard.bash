# bash completion for creditguard: eval "$(creditguard completion bash)"
_creditguard() {
    local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]-} words="" at
    COMPREPLY=()
    for ((at = 2; at < COMP_CWORD; at++)); do
        if [[ ${COMP_WORDS[at]} == -- ]]; then
            if ((COMP_CWORD == at + 1)); then
                mapfile -t COMPREPLY < <(compgen -c -- "$current")
            else
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
            fi
            return
        fi
    done
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "balance check run wait holds history ledger record completion sandbox --help --version" -- "$current")
        return
    fi
    case $command:${COMP_WORDS[COMP_CWORD - 1]} in
        check:--budget) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        check:--name) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        check:--keep) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        check:--on-short) mapfile -t COMPREPLY < <(compgen -W "abort warn" -- "$current"); return ;;
        check:--on-unreadable) mapfile -t COMPREPLY < <(compgen -W "abort warn" -- "$current"); return ;;
        check:--account) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        check:--ledger) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        check:--label) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        check:--short-code) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--budget) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--name) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--keep) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--on-short) mapfile -t COMPREPLY < <(compgen -W "abort warn" -- "$current"); return ;;
        run:--on-unreadable) mapfile -t COMPREPLY < <(compgen -W "abort warn" -- "$current"); return ;;
        run:--account) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--ledger) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--label) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--short-code) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--report-file) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
        run:--settle) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--watch) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--threshold) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--on-overrun) mapfile -t COMPREPLY < <(compgen -W "warn stop" -- "$current"); return ;;
        run:--stop-below) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--kill-after) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--wait) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        run:--interval) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        wait:--budget) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        wait:--name) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        wait:--keep) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        wait:--on-short) mapfile -t COMPREPLY < <(compgen -W "abort warn" -- "$current"); return ;;
        wait:--on-unreadable) mapfile -t COMPREPLY < <(compgen -W "abort warn" -- "$current"); return ;;
        wait:--account) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        wait:--ledger) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        wait:--label) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        wait:--short-code) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        wait:--timeout) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        wait:--interval) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        holds:--account) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        holds:--ledger) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        history:--name) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        history:--limit) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        history:--account) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        history:--ledger) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        ledger:--ledger) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        sandbox:--port) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
        sandbox:--credits) mapfile -t COMPREPLY < <(compgen -W "" -- "$current"); return ;;
    esac
    case $command in
        balance) words="-h --help --json" ;;
        check) words="-h --help --budget --name --keep --on-short --on-unreadable --account --ledger --label --short-code -q --quiet --json --systemd" ;;
        run) words="-h --help --budget --name --keep --on-short --on-unreadable --account --ledger --label --short-code -q --quiet --report-file --settle --watch --threshold --on-overrun --stop-below --progress --kill-after --wait --interval" ;;
        wait) words="-h --help --budget --name --keep --on-short --on-unreadable --account --ledger --label --short-code -q --quiet --timeout --interval" ;;
        holds) words="-h --help --account --ledger --json list release" ;;
        history) words="-h --help --name --limit --account --ledger --json" ;;
        ledger) words="-h --help --ledger init" ;;
        record) words="-h --help" ;;
        completion) words="-h --help bash zsh fish man" ;;
        sandbox) words="-h --help --port --credits" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o filenames -F _creditguard creditguard
