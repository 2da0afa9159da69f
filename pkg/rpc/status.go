package rpc

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"konsul.dev/pkg/fault"
)

// errorDomain marks the status details that are ours.
const errorDomain = "konsul.dev"

const metaRemedy = "remedy"

func toCode(c fault.Code) codes.Code {
	switch c {
	case fault.InvalidArgument:
		return codes.InvalidArgument
	case fault.NotFound:
		return codes.NotFound
	case fault.AlreadyExists:
		return codes.AlreadyExists
	case fault.FailedPrecondition:
		return codes.FailedPrecondition
	case fault.Aborted:
		return codes.Aborted
	case fault.OutOfRange:
		return codes.OutOfRange
	case fault.Unavailable:
		return codes.Unavailable
	case fault.Unknown:
		return codes.Unknown
	case fault.ResourceExhausted:
		return codes.ResourceExhausted
	case fault.Unauthenticated:
		return codes.Unauthenticated
	case fault.PermissionDenied:
		return codes.PermissionDenied
	case fault.DataLoss:
		return codes.DataLoss
	case fault.Unimplemented:
		return codes.Unimplemented
	case fault.Canceled:
		return codes.Canceled
	case fault.DeadlineExceeded:
		return codes.DeadlineExceeded
	case fault.Internal:
		return codes.Internal
	}
	return codes.Internal
}

func fromCode(c codes.Code) fault.Code {
	for f := fault.Internal; f <= fault.DeadlineExceeded; f++ {
		if toCode(f) == c {
			return f
		}
	}
	return fault.Internal
}

// ToStatus turns an error into what goes over the wire. A fault keeps its code, reason, field,
// remedy and facts; its cause stays here. Context errors and statuses pass through. Anything else
// becomes Internal without its text.
func ToStatus(err error) *status.Status {
	if f, ok := fault.As(err); ok {
		return faultStatus(f)
	}
	switch {
	case err == nil:
		return status.New(codes.OK, "")
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "canceled by the caller")
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, "deadline exceeded")
	}
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(err, &carrier) {
		return carrier.GRPCStatus()
	}
	return status.New(codes.Internal, "internal error")
}

func faultStatus(f *fault.Error) *status.Status {
	st := status.New(toCode(f.Code()), f.Message())
	meta := f.Meta()
	if f.Remedy() != "" {
		if meta == nil {
			meta = map[string]string{}
		}
		meta[metaRemedy] = f.Remedy()
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: f.Reason(), Domain: errorDomain, Metadata: meta}}
	if f.Field() != "" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: f.Field(), Description: f.Message()},
		}})
	}
	if f.RetryAfter() > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(f.RetryAfter())})
	}
	if full, err := st.WithDetails(details...); err == nil {
		return full
	}
	return st
}

// FromStatus turns an error of a gRPC call into a fault. One without our details (it comes from the
// transport or a stranger) has an empty reason. Nil stays nil.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := fault.As(err); ok {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	reason, remedy := "", ""
	var meta map[string]string
	var rest []func(*fault.Error) *fault.Error
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == errorDomain {
				reason, meta = d.GetReason(), d.GetMetadata()
				remedy = meta[metaRemedy]
			}
		case *errdetails.BadRequest:
			if v := d.GetFieldViolations(); len(v) > 0 {
				rest = append(rest, func(f *fault.Error) *fault.Error { return f.WithField(v[0].GetField()) })
			}
		case *errdetails.RetryInfo:
			rest = append(rest, func(f *fault.Error) *fault.Error { return f.WithRetryAfter(d.GetRetryDelay().AsDuration()) })
		}
	}
	f := fault.New(fromCode(st.Code()), reason, "%s", st.Message()).WithRemedy(remedy)
	for key, value := range meta {
		if key != metaRemedy {
			f = f.WithMeta(key, value)
		}
	}
	for _, add := range rest {
		f = add(f)
	}
	return f
}
