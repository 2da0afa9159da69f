package badgerstore

import (
	"fmt"
	"log/slog"
	"strings"
)

// badgerLog brings Badger's chatter into ours, one level down: its Info is our Debug.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(format string, args ...any) {
	l.log.Error("badger", "detail", text(format, args))
}

func (l badgerLog) Warningf(format string, args ...any) {
	l.log.Warn("badger", "detail", text(format, args))
}

func (l badgerLog) Infof(format string, args ...any) {
	l.log.Debug("badger", "detail", text(format, args))
}
func (l badgerLog) Debugf(format string, args ...any) {}

func text(format string, args []any) string { return strings.TrimSpace(fmt.Sprintf(format, args...)) }
