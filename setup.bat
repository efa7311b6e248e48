@echo off
rem Sets up and runs the OpenScans backend.
rem   setup.bat         make the virtual environment and install what this machine can use
rem   setup.bat run     ... and start the server on port 8000
rem   setup.bat demo    ... and detect the vertebrae of a synthetic CT through HTTP
rem   setup.bat test    ... and run all tests
rem   setup.bat build   build the executable in dist\, in an environment of its own; --cuda: with PyTorch, from .venv
rem Before the task:
rem   --full     the full set, with PyTorch; without a flag so where an NVIDIA driver is found
rem   --cpu      the lean set, without PyTorch; without a flag so everywhere else
rem   --locked   exactly the versions of the lock file; best into no environment: what is there and not in it stays
rem An environment stays what it was made as, full or lean, locked or not; delete .venv to change it.
setlocal
cd /d "%~dp0"
set "KIND="
set "LOCKED="

:flags
if /i "%~1"=="--full" (
    set "KIND=full"
    shift
    goto flags
)
if /i "%~1"=="--cpu" (
    set "KIND=lean"
    shift
    goto flags
)
if /i "%~1"=="--locked" (
    set "LOCKED=yes"
    shift
    goto flags
)
set "TASK=%~1"
if "%TASK%"=="" set "TASK=install"
if /i "%TASK%"=="build" goto build
if /i "%TASK%"=="install" goto known
if /i "%TASK%"=="run" goto known
if /i "%TASK%"=="demo" goto known
if /i "%TASK%"=="test" goto known
echo usage: setup.bat [--full ^| --cpu] [--locked] [install ^| run ^| demo ^| test ^| build] 1>&2
exit /b 2

:known
call :install
if errorlevel 1 exit /b 1
if /i "%TASK%"=="install" exit /b 0
if /i "%TASK%"=="run" .venv\Scripts\python.exe main.py %2 %3 %4 %5 %6 %7 %8 %9
if /i "%TASK%"=="demo" .venv\Scripts\python.exe -m phantom.demo %2 %3 %4 %5 %6 %7 %8 %9
if /i "%TASK%"=="test" .venv\Scripts\python.exe -m pytest %2 %3 %4 %5 %6 %7 %8 %9
exit /b %errorlevel%

:build
rem Without PyTorch always from the lock, into an environment made for just that: the same commit gives the same parts.
rem PyTorch's would be too large to have twice, so it is built from .venv.
if /i "%~2"=="--cuda" goto build_cuda
fc /b requirements-cpu.lock build\venv\made-of.lock >nul 2>&1
if not errorlevel 1 goto build_here
if exist build\venv rmdir /s /q build\venv
call :make_environment build\venv
if errorlevel 1 exit /b 1
call :pip_install build\venv --no-deps --require-hashes -r requirements-cpu.lock
if errorlevel 1 exit /b 1
copy /b requirements-cpu.lock build\venv\made-of.lock >nul
:build_here
build\venv\Scripts\python.exe -m PyInstaller --noconfirm --workpath build\work build.spec -- %2
exit /b %errorlevel%

:build_cuda
set "KIND=full"
call :install
if errorlevel 1 exit /b 1
.venv\Scripts\python.exe -m PyInstaller --noconfirm --workpath build\work build.spec -- --cuda
exit /b %errorlevel%

:install
rem The set that .venv was made with, and nothing where none is installed there yet.
set "THERE="
if exist .venv\installed.txt set "THERE=full"
if exist .venv\full set "THERE=full"
if exist .venv\lean set "THERE=lean"
if "%KIND%"=="" set "KIND=%THERE%"
if "%THERE%"=="" set "THERE=%KIND%"
if not "%KIND%"=="%THERE%" (
    echo The environment in .venv is the %THERE% one. Delete .venv to change it, and run this again. 1>&2
    exit /b 1
)
if exist .venv\locked set "LOCKED=yes"
rem The installed requirements are kept beside the environment; equal files mean that nothing is left to do.
copy /b requirements*.txt + requirements*.lock "%TEMP%\openscans-requirements.txt" >nul
echo locked=%LOCKED%>>"%TEMP%\openscans-requirements.txt"
if not exist .venv\installed.txt goto environment
fc /b "%TEMP%\openscans-requirements.txt" .venv\installed.txt >nul 2>&1
if not errorlevel 1 exit /b 0

:environment
call :make_environment .venv
if errorlevel 1 exit /b 1
call :choose_kind
type nul >.venv\%KIND%
if defined LOCKED goto locked
if "%KIND%"=="lean" goto lean
call :pip_install .venv -r requirements.txt -r requirements-dev.txt
if errorlevel 1 exit /b 1
goto installed

:lean
call :pip_install .venv -r requirements-cpu.txt -r requirements-test.txt
if errorlevel 1 exit /b 1
rem Last and alone: it asks for PyTorch, and pip would complain of every package that is not there.
call :pip_install .venv --no-deps -r requirements-totalsegmentator.txt
if errorlevel 1 exit /b 1
goto installed

:locked
type nul >.venv\locked
set "SET="
if "%KIND%"=="lean" set "SET=-cpu"
call :pip_install .venv --no-deps --require-hashes -r requirements%SET%.lock
if errorlevel 1 exit /b 1

:installed
copy /b "%TEMP%\openscans-requirements.txt" .venv\installed.txt >nul
exit /b 0

rem Says why, and how to get the other one.
:choose_kind
if "%KIND%"=="full" echo Installing the full set into .venv, with PyTorch, in some minutes. 1>&2
if "%KIND%"=="lean" echo Installing the lean set into .venv, without PyTorch. 1>&2
if not "%KIND%"=="" exit /b 0
set "KIND=lean"
if exist "%SystemRoot%\System32\nvcuda.dll" set "KIND=full"
nvidia-smi -L >nul 2>&1 && set "KIND=full"
if "%KIND%"=="lean" (
    echo No NVIDIA driver was found: installing the lean set into .venv. setup.bat --full takes the full one, with PyTorch. 1>&2
) else (
    echo An NVIDIA driver was found: installing the full set into .venv. setup.bat --cpu takes the lean one, without PyTorch. 1>&2
    echo The PyTorch that is installed on Windows has no CUDA; README, "Install", says how to get one that has. 1>&2
)
exit /b 0

:make_environment
if exist %1\Scripts\python.exe %1\Scripts\python.exe -c "" >nul 2>&1 && exit /b 0
call :find_python
if not defined PYTHON (
    echo No Python 3.11 to 3.13 was found. Install Python 3.13 from https://www.python.org/downloads/ and run this again. 1>&2
    exit /b 1
)
rem Without the question pip would end with a list of old versions.
%PYTHON% -c "import sys, sysconfig; sys.exit(sysconfig.get_platform() != 'win-amd64')"
if errorlevel 1 (
    echo OpenVINO, which runs the networks, has no wheels for this Python: on Windows it has some for 64 bits on x86 only. 1>&2
    echo On Windows on ARM run setup.sh in WSL, in Ubuntu 22.04 or newer; elsewhere install the 64-bit Python. 1>&2
    exit /b 1
)
if exist %1 rmdir /s /q %1
echo Making %1 with %PYTHON%. 1>&2
%PYTHON% -m venv %1
if errorlevel 1 (
    echo The virtual environment could not be made. 1>&2
    exit /b 1
)
exit /b 0

:pip_install
%1\Scripts\python.exe -m pip install --disable-pip-version-check %2 %3 %4 %5 %6 %7 %8 %9
if errorlevel 1 (
    echo The packages could not be installed; the lines above say why. 1>&2
    exit /b 1
)
exit /b 0

:find_python
set "PYTHON="
for %%V in (3.13 3.12 3.11) do (
    if not defined PYTHON (
        py -%%V -c "" >nul 2>&1 && set "PYTHON=py -%%V"
    )
)
if defined PYTHON exit /b 0
python -c "import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13)))" >nul 2>&1 && set "PYTHON=python"
exit /b 0
