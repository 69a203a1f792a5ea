package tritonclient

import (
	"strings"

	"google.golang.org/grpc/codes"
)

// classify turns a gRPC code and text into a Kind. It is the only place that
// looks at texts. They are Triton's own (core and the gRPC frontend), grpc-go's
// where the comment says so, and lower case here because wording is steadier
// than spelling. op is the RPC's name.
//
// Everything that ended because of the caller's context is dealt with before.
func classify(op string, code codes.Code, text string) Kind {
	text = strings.ToLower(text)
	has := func(s string) bool { return strings.Contains(text, s) }

	switch code {
	case codes.Unavailable:
		// Triton's own code never says RESOURCE_EXHAUSTED; everything it cannot
		// do now, and some things it never will, come as UNAVAILABLE.
		switch {
		case has("exceeds maximum queue size"):
			// max_queue_size of the model's queue policy; counts requests.
			return QueueFull
		case has("request timeout expired"):
			// default_timeout_microseconds of the queue policy, or the
			// request's own timeout, with timeout_action REJECT.
			return QueueTimeout
		case has("this protocol is restricted"):
			// --grpc-restricted-protocol and our header is missing or wrong:
			// waiting will not change it.
			return Restricted
		case has("explicit model load / unload is not allowed"):
			// --model-control-mode is not explicit: permanent.
			return ModelControlDisabled
		case has("is not at ready state"):
			// The version exists and is loading, unloading or failed: a reload.
			return ModelNotReady
		case has("authentication handshake failed") && (has("x509:") || has("tls:")):
			// grpc-go: one side does not accept the other's certificate, or
			// only one speaks TLS. A handshake that broke off (EOF, reset,
			// timeout) is a server going away and stays Unavailable.
			return Restricted
		}
		// "GRPC server is shutting down and has stopped accepting new
		// requests", "Server is stopping, scheduler for model has stopped
		// accepting new inference requests", "Server exiting", "Server not
		// ready"; grpc-go's refused, reset, EOF, GOAWAY; a proxy's
		// 502, 503, 504.
		return Unavailable

	case codes.Canceled:
		// Our context lives, so the server let the call go: its frontend
		// cancels what it holds when it shuts down.
		return Unavailable

	case codes.NotFound:
		switch {
		case has("shared memory region"):
			// "Unable to find shared memory region": registrations die with the
			// server.
			return UnknownRegion
		case has("unknown model"), has("no available versions"):
			// "Request for unknown model: 'm' is not found" or "… has no
			// available versions": never loaded, unloaded, or between the two
			// halves of a reload.
			return ModelNotReady
		}

	case codes.AlreadyExists:
		if has("shared memory region") {
			// "shared memory region 'n' already in manager".
			return RegionExists
		}

	case codes.Unimplemented:
		if has("shared memory is disabled") || strings.Contains(op, "SharedMemory") {
			// Servers from 26.04 on without --allow-client-shm; and servers of
			// other makes, which do not know the RPC.
			return SharedMemoryDisabled
		}

	case codes.InvalidArgument:
		switch {
		case op == "RepositoryModelLoad":
			// "load failed for model 'm': version 1 is at UNAVAILABLE state: …":
			// the model's own initialisation failed, or the override does not
			// hold.
			return LoadFailed
		case op == "ModelStatistics" && has("is not available"):
			// "requested model 'm' is not available": what the other RPCs call
			// an unknown model.
			return ModelNotReady
		case op == "SystemSharedMemoryRegister":
			// "failed to register shared memory region 'n': invalid args": the
			// size check or mmap; or a key that is registered already, see
			// [Region].
			return RegionRefused
		}
		// Shape, type, byte size, batch beyond max_batch_size, unknown input or
		// output, bad override. A request beyond the end of its region is one
		// too.
		return InvalidArgument

	case codes.ResourceExhausted:
		if has("larger than max") {
			// grpc-go on our side, gRPC core on the server's.
			return TooLarge
		}
		// No text of Triton's: a proxy's quota, or gRPC core short of memory.
		// Sending less at once is the remedy for both.
		return QueueFull

	case codes.Internal, codes.Unknown:
		switch {
		case has("stream terminated by rst_stream"),
			has("server closed the stream without sending trailers"),
			has("unexpected eof"):
			// grpc-go: the connection ended in the middle of the call.
			return Unavailable
		case has("error while marshaling"):
			// grpc-go: the request is no valid message and was never sent.
			return InvalidArgument
		case op == "RepositoryModelLoad":
			// "failed to load 'm', failed to poll from model repository": no
			// such model, no valid config, or an override that is neither.
			return LoadFailed
		case op == "SystemSharedMemoryRegister":
			// "Unable to open shared memory region", "Invalid shared memory
			// region": shm_open, fstat.
			return RegionRefused
		case has("stub process") && has("is not healthy"):
			// The Python backend's child process has died, and Triton 24.10
			// starts no other: nothing of the model works until somebody
			// reloads it or starts the server again. ModelReady stays true.
			return ModelNotReady
		case has("failed to unmarshal"), has("grpc: failed to decompress"):
			// grpc-go could not read the answer.
			return BadResponse
		}
		// The backend's own words; TRITONSERVER_ERROR_UNKNOWN is what a backend
		// says that did not choose a code. Every request of a merged batch gets
		// it, not only the one that caused it.
		return Internal

	case codes.PermissionDenied, codes.Unauthenticated:
		// Not Triton's: a proxy before it.
		return Restricted

	case codes.DeadlineExceeded:
		return Deadline
	}
	return Other
}

// lost reports whether a failure of this kind and text means that the server, or
// the model's process, went while it had the request.
func lost(kind Kind, text string) bool {
	text = strings.ToLower(text)
	has := func(s string) bool { return strings.Contains(text, s) }
	switch kind {
	case ModelNotReady:
		// The Python backend says so for the requests that its process had, and
		// for all that come after.
		return has("stub process") && has("is not healthy")
	case Unavailable:
	default:
		return false
	}
	switch {
	case has("use of closed network connection"), has("prior goaway"), has("refused_stream"):
		// Cut on this side; or a server that said goodbye before; or one that
		// had not begun.
		return false
	case has("error reading from server"):
		// grpc-go: a connection that worked has ended. A timeout of TCP's says
		// nothing about the server.
		return has("eof") || has("connection reset") || has("broken pipe")
	case has("stream terminated by rst_stream"), has("without sending trailers"),
		// Proxies (nginx; Envoy) whose server hung up on them.
		has("502 (bad gateway)"), has("reset reason: connection termination"):
		return true
	}
	return false
}
